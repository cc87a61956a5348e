"""One training example: what it says, how well checkpoints know it, and which stored queries it moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from lorif_assets.attribution.scores.score_rows import EVERY, HIGHEST
from lorif_assets.data.passages import Part, passage_metadata, passage_parts
from lorif_assets.errors import NotStoredError
from lorif_assets.influences.catalogue import query_contents, scored_checkpoints
from lorif_assets.influences.ranked import Side
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, QUERY_SCORES, QUERY_SUMMARIES
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.lake import Lake

_QUERY = ["checkpoint", "query_set", "query_id"]


@dataclass(frozen=True)
class ExampleLoss:
    """An example's loss per token at a checkpoint, in nats, and whether it was cut there."""

    checkpoint: str
    loss_per_token: float
    n_target_tokens: int
    truncated: bool


@dataclass(frozen=True)
class MovedQuery:
    """A stored query that lists an example, and where.

    `parts` are empty where the set has it no more; `objective` is as that of a `ScoredQuery`. `spreads` is the score in
    standard deviations of all scores of the query: what can be compared from query to query.
    """

    checkpoint: str
    query_set: str
    query_id: str
    parts: tuple[Part, ...]
    objective: Mapping[str, Any]
    side: Side
    rank: int
    score: float
    spreads: float | None


@dataclass(frozen=True)
class Example:
    """A training example; `moved` has the queries that list it, the strongest first, at most `n_moved` of them."""

    shard: str
    example_id: str
    row: int
    parts: tuple[Part, ...]
    metadata: Mapping[str, Any]
    losses: tuple[ExampleLoss, ...]
    moved: tuple[MovedQuery, ...]
    n_moved: int


def example(lake: Lake, shard: str, example_id: str, most_moved: int, checkpoint: str | None = None) -> Example:
    """Return a training example.

    Args:
        lake: where it is stored.
        shard: that it is in.
        example_id: its id.
        most_moved: queries to return, of those that it moves most.
        checkpoint: whose scores count; default: those of all.

    Raises:
        NotStoredError: it is not in the training data, or not any more; or there are no scores of the checkpoint.
    """
    found = lake.read(TRAINING_EXAMPLES, shard=shard, example_id=example_id)
    if found.is_empty():
        raise NotStoredError(
            f"the training data have no example {example_id!r} in the shard {shard!r}: it was withdrawn, or never there"
        )
    if checkpoint is not None and checkpoint not in (scored := [one.name for one in scored_checkpoints(lake)]):
        raise NotStoredError(
            f"no scores are stored of a checkpoint {checkpoint!r}; there are those of {', '.join(scored) or 'none'}"
        )
    (row,) = found.head(1).to_dicts()
    moved = _moved(lake, shard, example_id, checkpoint)
    return Example(
        shard=shard,
        example_id=example_id,
        row=row["row"],
        parts=passage_parts(row),
        metadata=passage_metadata(row),
        losses=_losses(lake, shard, example_id),
        moved=_with_parts(lake, moved.head(most_moved)),
        n_moved=moved.height,
    )


def _losses(lake: Lake, shard: str, example_id: str) -> tuple[ExampleLoss, ...]:
    columns = ["checkpoint", "loss", "n_target_tokens", "truncated"]
    rows = {
        row["checkpoint"]: row
        for row in lake.read(GRADIENT_FACTORS, columns, shard=shard, example_id=example_id).iter_rows(named=True)
    }
    order = [one.name for one in scored_checkpoints(lake)]
    return tuple(
        ExampleLoss(
            name,
            rows[name]["loss"] / max(rows[name]["n_target_tokens"], 1),
            rows[name]["n_target_tokens"],
            bool(rows[name]["truncated"]),
        )
        for name in sorted(rows, key=lambda name: (order.index(name) if name in order else len(order), name))
    )


def _moved(lake: Lake, shard: str, example_id: str, checkpoint: str | None) -> pl.DataFrame:
    """Rows of scores that list the example, with `spreads`, the strongest first."""
    at = {} if checkpoint is None else {"checkpoint": checkpoint}
    columns = [*_QUERY, "side", "rank", "score"]
    rows = lake.read(QUERY_SCORES, columns, shard=shard, example_id=example_id, **at)
    spread = lake.read(QUERY_SUMMARIES, [*_QUERY, "score_std", "n_examples"], **at)
    return (
        rows.join(spread, on=_QUERY, how="inner")
        .with_columns(spreads=pl.when(pl.col("score_std") > 0).then(pl.col("score") / pl.col("score_std")))
        .sort(pl.col("spreads").abs(), *_QUERY, "side", descending=[True, False, False, False, False], nulls_last=True)
    )


def _with_parts(lake: Lake, moved: pl.DataFrame) -> tuple[MovedQuery, ...]:
    contents = {name: query_contents(lake, name) for name in moved["query_set"].unique().to_list()}
    found = []
    for row in moved.iter_rows(named=True):
        is_proponent = row["score"] > 0 if row["side"] == EVERY else row["side"] == HIGHEST
        rank = row["rank"] if row["side"] != EVERY or is_proponent else row["n_examples"] - row["rank"] + 1
        parts, objective = contents[row["query_set"]].get(row["query_id"], ((), {}))
        found.append(
            MovedQuery(
                checkpoint=row["checkpoint"],
                query_set=row["query_set"],
                query_id=row["query_id"],
                parts=parts,
                objective=objective,
                side=Side.PROPONENTS if is_proponent else Side.OPPONENTS,
                rank=rank,
                score=row["score"],
                spreads=row["spreads"],
            )
        )
    return tuple(found)
