"""How a query's leading examples moved from checkpoint to checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from lorif_assets.attribution.scores.stored_rankings import Ranking
from lorif_assets.data.passages import passage_text, passages
from lorif_assets.errors import NotStoredError
from lorif_assets.influences.catalogue import ScoredQuery, scored_checkpoints, scored_query
from lorif_assets.influences.ranked import Side, ranked_query
from lorif_assets.lake.attribution_tables import CHECKPOINT_COMPARISONS
from lorif_assets.lake.lake import Lake


@dataclass(frozen=True)
class QueryAtCheckpoint:
    """A query at a checkpoint: its loss, and how far its proponents are those of the checkpoint before.

    `loss` (nats, summed) is the value of what is asked about where that is not a loss; `loss_per_token` is None there.
    `overlap` is the rank-biased overlap, 0 to 1; None at the first, or where it is not stored. `has_ranking` says whether the
    ranking in question is stored here.
    """

    checkpoint: str
    step: int | None
    loss: float
    loss_per_token: float | None
    overlap: float | None
    has_ranking: bool


@dataclass(frozen=True)
class MovingExample:
    """An example that leads somewhere: its rank at each checkpoint, None where it is not listed."""

    shard: str
    example_id: str
    text: str
    ranks: tuple[int | None, ...]


@dataclass(frozen=True)
class Movement:
    """The checkpoints in order of step, and the examples that are among the leading ones of any of them."""

    checkpoints: tuple[QueryAtCheckpoint, ...]
    examples: tuple[MovingExample, ...]


def movement(lake: Lake, query_set: str, query_id: str, ranking: Ranking, side: Side, leading: int) -> Movement:
    """Return how the `leading` examples of one side of a query moved over the checkpoints that it is scored at.

    Raises:
        NotStoredError: it is scored at none.
        SettingsError: there is no such ranking.
    """
    checkpoints = [one for one in scored_checkpoints(lake) if query_set in one.query_sets]
    queries: dict[str, ScoredQuery] = {}
    sides: dict[str, pl.DataFrame] = {}
    for one in checkpoints:
        try:
            queries[one.name] = query = scored_query(lake, one.name, query_set, query_id)
            sides[one.name] = ranked_query(lake, one.name, query, ranking).side(side)
        except NotStoredError:
            continue
    if not queries:
        raise NotStoredError(f"no checkpoint has scores of a query {query_id!r} in the query set {query_set!r}")
    overlaps = _overlaps(lake, query_set, query_id, ranking)
    return Movement(
        tuple(
            QueryAtCheckpoint(
                one.name,
                one.step,
                queries[one.name].loss,
                queries[one.name].loss_per_token,
                overlaps.get(one.name),
                one.name in sides,
            )
            for one in checkpoints
            if one.name in queries
        ),
        _examples(lake, list(queries), sides, leading),
    )


def _overlaps(lake: Lake, query_set: str, query_id: str, ranking: Ranking) -> dict[str, float | None]:
    column = "rank_biased_overlap" if ranking == "plain" else "relative_overlap"
    rows = lake.read(CHECKPOINT_COMPARISONS, ["to_checkpoint", column], query_set=query_set, query_id=query_id)
    return dict(rows.iter_rows())


def _examples(
    lake: Lake, checkpoints: list[str], sides: Mapping[str, pl.DataFrame], leading: int
) -> tuple[MovingExample, ...]:
    ranks: dict[tuple[str, str], dict[str, int]] = {}
    for name, rows in sides.items():
        for shard, example_id, rank in rows.select("shard", "example_id", "rank").iter_rows():
            ranks.setdefault((shard, example_id), {})[name] = rank
    leaders = {pair: found for pair, found in ranks.items() if min(found.values()) <= leading}
    texts = passages(lake, leaders)
    # Those that lead at the last checkpoint first, then those that led at the ones before.
    order = sorted(
        leaders,
        key=lambda pair: ([leaders[pair].get(name, 1 << 31) for name in reversed(checkpoints)], pair),
    )
    return tuple(
        MovingExample(
            *pair,
            passage_text(texts[pair]) if pair in texts else "",
            tuple(leaders[pair].get(name) for name in checkpoints),
        )
        for pair in order
    )
