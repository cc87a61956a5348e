"""Scoring queries against a checkpoint's stored factors in one streaming pass, however many queries there are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from lorif_assets.attribution.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.precondition_queries import PreconditionedQueries, preconditioned_queries
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.config.settings import BatchSettings
from lorif_assets.errors import MismatchError
from lorif_assets.lake.lake import FactorFile
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch

    from lorif_assets.data.tokenization import TokenizedExample
    from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments

HIGHEST, LOWEST, EVERY = "highest", "lowest", "all"

BlockScorer = Callable[[Sequence[FactorFile]], "Iterator[torch.Tensor]"]
"""Yields the scores [Q, n] of the examples of adjacent files, block by block, in their order."""


@dataclass(frozen=True)
class QueryScores:
    """Scores of one query set.

    `scores` has the columns query_id, side, rank, example_id, shard, score; `summaries` one row per query with its
    loss, and the spread and concentration of its scores over all examples. `scan` says what was scanned, and why.
    `query_error` is the relative error of the preconditioned queries, 0 if they are kept whole.
    """

    scores: pl.DataFrame
    summaries: pl.DataFrame
    scan: str
    examples_scanned: int
    query_error: float


@dataclass(frozen=True)
class Scan:
    """Which files to scan and why, and the extremes and moments already known from the others."""

    files: "tuple[FactorFile, ...]"
    extremes: "ScoreExtremes"
    moments: "ScoreMoments"
    reason: str

    @property
    def is_full(self) -> bool:
        """Whether nothing was known before it."""
        return self.moments.count == 0


@dataclass(frozen=True)
class ScanResult:
    """The scores of a scan, and the extremes and moments that they were taken from."""

    scores: QueryScores
    extremes: "ScoreExtremes"
    moments: "ScoreMoments"


def score_queries(
    checkpoint: AttributedCheckpoint,
    queries: "Sequence[TokenizedExample]",
    *,
    top_k: int | Literal["all"],
    batch: BatchSettings,
    progress: Progress,
    reason: str,
) -> QueryScores:
    """Score every stored example for every query.

    Args:
        checkpoint: with its model loaded.
        queries: tokenized.
        top_k: proponents and opponents to return, or every pair.
        batch: sizes of batches of queries and of blocks of factors.
        progress: advances with every block.
        reason: why every example is scored.

    Raises:
        MismatchError: the factors have another projection than the queries.
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    prepared_queries = comparable_queries(checkpoint, queries, batch)
    scan = full_scan(checkpoint.stored.factors, len(queries), extreme_count(top_k), reason)
    blocks = block_scorer(checkpoint, prepared_queries, batch)
    return run_scan(checkpoint, queries, prepared_queries, scan, blocks, top_k=top_k, progress=progress).scores


def comparable_queries(
    checkpoint: AttributedCheckpoint, queries: "Sequence[TokenizedExample]", batch: BatchSettings
) -> PreconditionedQueries:
    """Return preconditioned queries that can be compared with the stored factors.

    Raises:
        MismatchError: the factors have another projection than the queries.
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    name, stored, own = checkpoint.stored.record.name, checkpoint.stored.factors.projection, checkpoint.model.projection
    if stored != own:
        raise MismatchError(
            f"the gradient factors of {name!r} have the projection {stored}, the queries {own}; they cannot be compared. "
            "Materialize `gradient_factors` again"
        )
    return preconditioned_queries(checkpoint, queries, batch)


def full_scan(factors: StoredFactors, n_queries: int, n_extremes: int, reason: str) -> Scan:
    """Return the scan of every shard that keeps `n_extremes` examples on either side of each query's ranking."""
    from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments

    return Scan(
        factors.files, ScoreExtremes.empty(n_queries, n_extremes), ScoreMoments.empty(n_queries), f"full scan: {reason}"
    )


def block_scorer(
    checkpoint: AttributedCheckpoint, prepared_queries: PreconditionedQueries, batch: BatchSettings
) -> BlockScorer:
    """Return a function that scores adjacent files, block by block."""
    from lorif_assets.mathematics.scores.scoring import block_scores

    stored, layers = checkpoint.stored.factors, list(checkpoint.stored.record.layer_shapes)

    def scores(files: "Sequence[FactorFile]") -> "Iterator[torch.Tensor]":
        for block in read_ahead(stored.scan_blocks(layers, batch.scan_rows, checkpoint.model.device, files)):
            yield block_scores(prepared_queries.by_layer, block)

    return scores


def run_scan(
    checkpoint: AttributedCheckpoint,
    queries: "Sequence[TokenizedExample]",
    prepared_queries: PreconditionedQueries,
    scan: Scan,
    blocks: BlockScorer,
    *,
    top_k: int | Literal["all"],
    progress: Progress,
) -> ScanResult:
    """Carry out a scan.

    Args:
        checkpoint: whose factors are scanned.
        queries: tokenized.
        prepared_queries: the same queries, preconditioned.
        scan: which files to scan, and what is known of the others.
        blocks: scores adjacent files.
        top_k: proponents and opponents to return, or every pair.
        progress: advances with every block.
    """
    import torch

    stored = checkpoint.stored.factors
    extremes, moments = scan.extremes, scan.moments
    every: list[torch.Tensor] = []
    for first, files in stored.adjacent(scan.files):
        position = first
        for scores in blocks(files):
            extremes = extremes.update(scores, position)
            moments = moments.update(scores)
            position += scores.shape[1]
            if top_k == "all":
                every.append(scores.cpu())
            progress.advance(scores.shape[1])
    extremes, moments = extremes.on_cpu(), moments.on_cpu()
    names = [query.example_id for query in queries]
    if top_k == "all":
        table = all_pairs(names, torch.cat(every, dim=1), stored.example_ids(range(moments.count)))
    else:
        k = min(top_k, moments.count)
        table = extreme_pairs(names, extremes, k, stored.example_ids(listed_positions(extremes, k)))
    query_scores = QueryScores(
        table,
        query_summaries(queries, prepared_queries.losses, extremes, moments),
        scan.reason,
        sum(file.rows for file in scan.files),
        prepared_queries.relative_error,
    )
    return ScanResult(query_scores, extremes, moments)


def extreme_count(top_k: int | Literal["all"]) -> int:
    """Return how many extremes of a query a scan keeps.

    At least 100, even if fewer are listed: the concentration of influence is that of the 10 and 100 highest.
    """
    return 100 if top_k == "all" else max(top_k, 100)


def listed_positions(extremes: "ScoreExtremes", k: int) -> list[int]:
    """Return the positions of the k highest and k lowest examples of every query."""
    sides = (extremes.highest_positions, extremes.lowest_positions)
    return [position for positions in sides for position in positions[:, :k].flatten().tolist()]


def extreme_pairs(
    names: Sequence[str], extremes: "ScoreExtremes", k: int, examples: Mapping[int, tuple[str, str]]
) -> pl.DataFrame:
    """Return the k highest and k lowest scores of each query as rows of a score table.

    Args:
        names: of the queries.
        extremes: at least k scores of each side.
        k: how many.
        examples: id and shard of each listed position.
    """
    sides = {
        HIGHEST: (extremes.highest[:, :k], extremes.highest_positions[:, :k]),
        LOWEST: (extremes.lowest[:, :k], extremes.lowest_positions[:, :k]),
    }
    return pl.DataFrame(
        [
            (name, side, rank, *examples[position], score)
            for side, (scores, positions) in sides.items()
            for name, row, at in zip(names, scores.tolist(), positions.tolist(), strict=True)
            for rank, (score, position) in enumerate(zip(row, at, strict=True), start=1)
        ],
        schema=_SCORE_SCHEMA,
        orient="row",
    )


def all_pairs(names: Sequence[str], scores: "torch.Tensor", examples: Mapping[int, tuple[str, str]]) -> pl.DataFrame:
    """Return every score [Q, N] as a row of a score table, each query's best first."""
    ids, shards = zip(*(examples[position] for position in range(scores.shape[1])), strict=True)
    return pl.concat(
        pl.DataFrame({"example_id": ids, "shard": shards, "score": row.numpy()})
        .sort("score", descending=True, maintain_order=True)
        .with_row_index("rank", offset=1)
        .with_columns(query_id=pl.lit(name), side=pl.lit(EVERY))
        .select(pl.col(column).cast(kind) for column, kind in _SCORE_SCHEMA.items())
        for name, row in zip(names, scores, strict=True)
    )


_SCORE_SCHEMA = {
    "query_id": pl.String,
    "side": pl.String,
    "rank": pl.Int32,
    "example_id": pl.String,
    "shard": pl.String,
    "score": pl.Float32,
}


def query_summaries(
    queries: "Sequence[TokenizedExample]", losses: "torch.Tensor", extremes: "ScoreExtremes", moments: "ScoreMoments"
) -> pl.DataFrame:
    """Return rows of `query_summaries`: each query's loss, and the spread and concentration of its scores."""
    from lorif_assets.mathematics.scores.scoring import share_of_positive

    return pl.DataFrame(
        {
            "query_id": [query.example_id for query in queries],
            "loss": losses.numpy(),
            "n_target_tokens": [query.n_targets for query in queries],
            "n_examples": [moments.count] * len(queries),
            "score_mean": moments.mean.numpy(),
            "score_std": moments.std.numpy(),
            "score_abs_sum": moments.magnitude.numpy(),
            "positive_sum": moments.positive.numpy(),
            "top_10_share": share_of_positive(extremes, moments, 10).numpy(),
            "top_100_share": share_of_positive(extremes, moments, 100).numpy(),
        }
    )
