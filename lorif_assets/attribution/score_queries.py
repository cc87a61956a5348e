"""Scoring queries against a checkpoint's stored factors in one streaming pass, however many queries there are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import polars as pl

from lorif_assets.attribution.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.precondition_queries import PreconditionedQueries, preconditioned_queries
from lorif_assets.attribution.score_rows import RELATIVE_SCHEMA, all_pairs, listed_positions, plain_rows, relative_rows
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.attribution.token_rows import TOKEN_ROWS
from lorif_assets.config.settings import BatchSettings
from lorif_assets.errors import MismatchError
from lorif_assets.lake.lake import FactorFile
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch

    from lorif_assets.data.tokenization import TokenizedExample
    from lorif_assets.mathematics.scores.relative_influence import Rankings, ScoredBlock
    from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments

ExampleIds = Callable[[Sequence[int]], Mapping[int, tuple[str, str]]]
"""Returns the id and the shard of examples by their position."""

BlockScorer = Callable[[Sequence[FactorFile]], "Iterator[ScoredBlock]"]
"""Scores the examples of adjacent files, block by block, in their order."""


@dataclass(frozen=True)
class QueryScores:
    """Scores of one query set.

    `scores` has the columns query_id, side, rank, example_id, shard, score, relative_score; `summaries` one row per query
    with its loss, and the spread and concentration of its scores over all examples. `scan` says what was scanned, and why.
    `query_error` is the relative error of the preconditioned queries, 0 if they are kept whole. `relative` has the rows
    that lead by relative influence, in the columns of `scores`; their ranks are those of that ranking. `tokens` has the
    shares of single tokens in leading scores, in the columns of `TOKEN_ROWS`, where they were asked for.
    """

    scores: pl.DataFrame
    summaries: pl.DataFrame
    scan: str
    examples_scanned: int
    query_error: float
    relative: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=RELATIVE_SCHEMA))
    tokens: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TOKEN_ROWS))


@dataclass(frozen=True)
class Scan:
    """Which files to scan and why, and the rankings already known from the others."""

    files: "tuple[FactorFile, ...]"
    rankings: "Rankings"
    reason: str

    @property
    def is_full(self) -> bool:
        """Whether nothing was known before it."""
        return self.rankings.moments.count == 0


@dataclass(frozen=True)
class ScanResult:
    """The scores of a scan, and the rankings that they were taken from."""

    scores: QueryScores
    rankings: "Rankings"


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
    from lorif_assets.mathematics.scores.relative_influence import Rankings

    return Scan(factors.files, Rankings.empty(n_queries, n_extremes, factors.n_examples), f"full scan: {reason}")


def block_scorer(
    checkpoint: AttributedCheckpoint, prepared_queries: PreconditionedQueries, batch: BatchSettings
) -> BlockScorer:
    """Return a function that scores adjacent files, block by block."""
    from lorif_assets.mathematics.scores.relative_influence import ScoredBlock

    stored, layers = checkpoint.stored.factors, list(checkpoint.stored.record.layer_shapes)

    def scores(files: "Sequence[FactorFile]") -> "Iterator[ScoredBlock]":
        for block in read_ahead(stored.scan_blocks(layers, batch.scan_rows, checkpoint.model.device, files)):
            yield ScoredBlock.of(prepared_queries.by_layer, block, prepared_queries.norm_weights)

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
    stored = checkpoint.stored.factors
    rankings, every = scan.rankings, []
    for first, files in stored.adjacent(scan.files):
        position = first
        for block in blocks(files):
            rankings = rankings.update(block, position)
            count = block.scores.shape[1]
            position += count
            if top_k == "all":
                every.append(block.scores.cpu())
            progress.advance(count)
    rankings = rankings.on_cpu()
    scores = listed_scores(
        queries,
        prepared_queries,
        rankings,
        every,
        stored.example_ids,
        top_k=top_k,
        scan=scan.reason,
        examples_scanned=sum(file.rows for file in scan.files),
    )
    return ScanResult(scores, rankings)


def listed_scores(
    queries: "Sequence[TokenizedExample]",
    prepared_queries: PreconditionedQueries,
    rankings: "Rankings",
    every: "Sequence[torch.Tensor]",
    example_ids: ExampleIds,
    *,
    top_k: int | Literal["all"],
    scan: str,
    examples_scanned: int,
) -> QueryScores:
    """Return what is kept of a scan.

    Args:
        queries: tokenized.
        prepared_queries: the same queries, preconditioned.
        rankings: of all examples.
        every: blocks of the scores of every example, where every pair is wanted.
        example_ids: of positions that are listed.
        top_k: proponents and opponents to list, or every pair. Of the relative ranking, both ends alone.
        scan: what was scanned, and why.
        examples_scanned: how many examples were.
    """
    import torch

    from lorif_assets.mathematics.scores.self_influence import relative_influence

    names, n_examples = [query.example_id for query in queries], rankings.moments.count
    k = min(extreme_count(top_k) if top_k == "all" else top_k, n_examples)
    if top_k == "all":
        examples = example_ids(range(n_examples))
        scores = torch.cat(list(every), dim=1)
        rows = all_pairs(names, scores, examples, relative_influence(scores, rankings.squares))
    else:
        examples = example_ids([*listed_positions(rankings.plain, k), *listed_positions(rankings.relative, k)])
        rows = plain_rows(names, rankings, k, examples)
    return QueryScores(
        rows,
        query_summaries(queries, prepared_queries.losses, rankings.plain, rankings.moments),
        scan,
        examples_scanned,
        prepared_queries.relative_error,
        relative_rows(names, rankings, k, examples),
    )


def extreme_count(top_k: int | Literal["all"]) -> int:
    """Return how many extremes of a query a scan keeps.

    At least 100, even if fewer are listed: the concentration of influence is that of the 10 and 100 highest.
    """
    return 100 if top_k == "all" else max(top_k, 100)


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
