"""Scoring queries against a checkpoint's stored factors in one streaming pass, however many queries there are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from lorif_assets.attribution.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.model import AttributedModel
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.config.settings import BatchSettings
from lorif_assets.errors import MismatchError, UnsoundQueryError
from lorif_assets.lake.lake import FactorFile
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch

    from lorif_assets.data.tokenization import TokenizedExample
    from lorif_assets.mathematics.curvature.curvature import LayerPreconditioner
    from lorif_assets.mathematics.scores.scoring import Queries, ScoreExtremes, ScoreMoments

HIGHEST, LOWEST, EVERY = "highest", "lowest", "all"

BlockScorer = Callable[[Sequence[FactorFile]], "Iterator[torch.Tensor]"]
"""Yields the scores [Q, n] of the examples of adjacent files, block by block, in their order."""

InverseOf = Callable[[str], "LayerPreconditioner"]
"""Returns the inverse curvature of a layer."""


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
class PreconditionedQueries:
    """Each layer's preconditioned queries, whole or at a rank, and each query's loss (summed, nats).

    `relative_error` is ||M - M~||_F / ||M||_F over all queries and layers: what the rank leaves out; 0 if whole.
    """

    by_layer: "dict[str, Queries]"
    losses: "torch.Tensor"
    relative_error: float


def preconditioned_queries(
    checkpoint: AttributedCheckpoint, queries: "Sequence[TokenizedExample]", batch: BatchSettings
) -> PreconditionedQueries:
    """Compute the queries' gradients and apply each layer's stored inverse curvature to them.

    Raises:
        UnsoundQueryError: a query's loss or gradient is not finite.
    """

    def inverse(layer: str) -> "LayerPreconditioner":
        return checkpoint.stored.preconditioners.load(layer, checkpoint.model.device)

    return precondition(checkpoint.model, queries, inverse, batch)


def precondition(
    attributed: AttributedModel, queries: "Sequence[TokenizedExample]", inverse: InverseOf, batch: BatchSettings
) -> PreconditionedQueries:
    """Compute the queries' gradients and apply each layer's inverse curvature, from any source, to them.

    Raises:
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    rank = attributed.recipe.query_rank
    if rank is None:
        return _whole_queries(attributed, queries, inverse, batch)
    return _queries_at_a_rank(attributed, queries, inverse, batch, rank)


def _whole_queries(
    attributed: AttributedModel, queries: "Sequence[TokenizedExample]", inverse: InverseOf, batch: BatchSettings
) -> PreconditionedQueries:
    import torch

    shapes = attributed.record.layer_shapes
    dense = {layer: torch.empty(len(queries), d1 * d2, device=attributed.device) for layer, (d1, d2) in shapes.items()}
    losses = torch.empty(len(queries))
    for positions, found in attributed.gradients(queries, batch.tokens):
        for layer, gradients in found.gradients.items():
            dense[layer][positions] = gradients.flatten(1).to(dense[layer])
        losses[positions] = found.losses.float().cpu()
    sound = losses.isfinite()
    for gradients in dense.values():
        sound &= gradients.isfinite().all(dim=1).cpu()
    _refuse_unsound(attributed, queries, sound)
    for layer in shapes:
        dense[layer] = inverse(layer).apply(dense[layer])
    return PreconditionedQueries({**dense}, losses, 0.0)


def _queries_at_a_rank(
    attributed: AttributedModel,
    queries: "Sequence[TokenizedExample]",
    inverse: InverseOf,
    batch: BatchSettings,
    rank: int,
) -> PreconditionedQueries:
    """Precondition each layer's gradients and cut their rank in the backward pass; dense ones stay within the budget."""
    import torch

    from lorif_assets.mathematics.factors.low_rank import GradientFactors
    from lorif_assets.mathematics.scores.scoring import low_rank_queries

    device, shapes, n = attributed.device, attributed.record.layer_shapes, len(queries)
    inverses = {layer: inverse(layer) for layer in shapes}
    factors_by_layer = {
        layer: GradientFactors(*(torch.empty(n, d, min(rank, *shape), device=device) for d in shape))
        for layer, shape in shapes.items()
    }
    losses, sound = torch.empty(n), torch.ones(n, dtype=torch.bool)
    total, lost = 0.0, 0.0
    with attributed.collector() as collector:
        for positions in attributed.batches(queries, batch.tokens):

            def sink(layer: str, rows: slice, gradients: torch.Tensor, at: Sequence[int] = positions) -> None:
                nonlocal total, lost
                places = list(at[rows])
                sound[places] &= gradients.isfinite().all(dim=2).all(dim=1).cpu()
                preconditioned = inverses[layer].apply(gradients.nan_to_num_().flatten(1).float()).view(gradients.shape)
                factors, errors = low_rank_queries(preconditioned, rank)
                factors_by_layer[layer].u[places], factors_by_layer[layer].v[places] = factors.u, factors.v
                total, lost = total + float(preconditioned.double().square().sum()), lost + float(errors.sum())

            losses[positions] = (
                collector.stream(attributed.batch(queries, positions), sink, batch.gradient_numbers).float().cpu()
            )
    _refuse_unsound(attributed, queries, sound & losses.isfinite())
    return PreconditionedQueries({**factors_by_layer}, losses, (lost / total) ** 0.5 if total else 0.0)


def _refuse_unsound(attributed: AttributedModel, queries: "Sequence[TokenizedExample]", sound: "torch.Tensor") -> None:
    unsound = [query.example_id for query, is_sound in zip(queries, sound.tolist(), strict=True) if not is_sound]
    if unsound:
        raise UnsoundQueryError(
            f"the loss or a gradient of query {unsound[0]!r} is not finite at checkpoint {attributed.record.name!r}, so its "
            "scores would mean nothing; are the checkpoint's weights finite?",
            unsound,
        )


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
        for block in read_ahead(stored.blocks(layers, batch.scan_rows, checkpoint.model.device, files)):
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
