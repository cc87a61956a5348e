"""Scoring a set of queries against a checkpoint's stored factors: one streaming pass, whatever the number of queries."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import polars as pl

from lorif_assets.attributed_model import AttributedModel
from lorif_assets.errors import LorifError, MismatchError
from lorif_assets.progress import Progress
from lorif_assets.stored_factors import StoredFactors
from lorif_assets.stored_preconditioners import StoredPreconditioners
from resources.lake import Lake

if TYPE_CHECKING:
    import torch

    from lorif_assets.attribution.scoring import ScoreExtremes, ScoreMoments
    from lorif_assets.corpus.tokenization import TokenizedExample

HIGHEST, LOWEST, EVERY = "highest", "lowest", "all"


@dataclass(frozen=True)
class QueryScores:
    """Scores of one query set.

    `scores` has the columns query_id, side, rank, example_id, shard, score; `summaries` one row per query with its
    loss, the spread of its scores over all examples and their concentration.
    """

    scores: pl.DataFrame
    summaries: pl.DataFrame


@dataclass(frozen=True)
class PreconditionedQueries:
    """Per layer vec(H^-1 G_q) [Q, D] of dense query gradients, and each query's loss (summed, nats)."""

    by_layer: "dict[str, torch.Tensor]"
    losses: "torch.Tensor"


def preconditioned_queries(
    attributed: AttributedModel,
    queries: "Sequence[TokenizedExample]",
    preconditioners: StoredPreconditioners,
    lake: Lake,
    batch_tokens: int,
) -> PreconditionedQueries:
    """Compute the queries' gradients, kept dense, and apply each layer's inverse curvature to them.

    Raises:
        LorifError: a query's loss or gradient is not finite.
    """
    import torch

    shapes = attributed.record.layer_shapes
    dense = {layer: torch.empty(len(queries), d1 * d2, device=attributed.device) for layer, (d1, d2) in shapes.items()}
    losses = torch.empty(len(queries))
    for positions, batch in attributed.gradients(queries, batch_tokens):
        for layer, gradients in batch.gradients.items():
            dense[layer][positions] = gradients.flatten(1).to(dense[layer])
        losses[positions] = batch.losses.float().cpu()
    for index, query in enumerate(queries):
        if not (losses[index].isfinite() and all(g[index].isfinite().all() for g in dense.values())):
            raise LorifError(
                f"the loss or a gradient of query {query.example_id!r} is not finite at checkpoint "
                f"{attributed.record.name!r}, so its scores would mean nothing; are the checkpoint's weights finite?"
            )
    for layer in shapes:
        preconditioner = preconditioners.load(lake, layer, attributed.recipe, attributed.device)
        dense[layer] = preconditioner.apply(dense[layer])
    return PreconditionedQueries(dense, losses)


def score_queries(
    attributed: AttributedModel,
    queries: "Sequence[TokenizedExample]",
    stored: StoredFactors,
    preconditioners: StoredPreconditioners,
    lake: Lake,
    *,
    top_k: int | Literal["all"],
    batch_tokens: int,
    scan_rows: int,
    progress: Progress,
) -> QueryScores:
    """Score every stored example for every query.

    Raises:
        MismatchError: the factors were projected otherwise than the queries would be.
        LorifError: a query's loss or gradient is not finite.
    """
    import torch

    from lorif_assets.attribution.scoring import ScoreExtremes, ScoreMoments, block_scores

    if stored.projection != attributed.projection:
        raise MismatchError(
            f"the gradient factors of {attributed.record.name!r} have the projection {stored.projection}, the queries "
            f"{attributed.projection}: they cannot be compared. Materialize `gradient_factors` again"
        )
    ready = preconditioned_queries(attributed, queries, preconditioners, lake, batch_tokens)
    # The concentration of influence is told by the 10 and 100 highest, also where fewer are listed.
    kept = 100 if top_k == "all" else max(top_k, 100)
    extremes, moments = ScoreExtremes.empty(len(queries), kept), ScoreMoments.empty(len(queries))
    every: list[torch.Tensor] = []
    for block in stored.blocks(lake, list(attributed.record.layer_shapes), scan_rows, attributed.device):
        scores = block_scores(ready.by_layer, block)
        extremes = extremes.update(scores, moments.count)
        moments = moments.update(scores)
        if top_k == "all":
            every.append(scores.cpu())
        progress.advance(scores.shape[1])
    names = [query.example_id for query in queries]
    if top_k == "all":
        table = all_pairs(names, torch.cat(every, dim=1), stored.example_ids(lake, range(moments.count)))
    else:
        k = min(top_k, moments.count)
        table = extreme_pairs(names, extremes, k, stored.example_ids(lake, listed_positions(extremes, k)))
    return QueryScores(table, query_summaries(queries, ready.losses, extremes, moments))


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
    from lorif_assets.attribution.scoring import share_of_positive

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
