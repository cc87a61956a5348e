"""The ranks of leading examples once they were ranked again by whole gradients (docs/method.md: exact re-ranking)."""

from collections.abc import Mapping
from dataclasses import dataclass

from lorif_assets.attribution.scores.stored_rankings import rows_beside_scores
from lorif_assets.lake.attribution_tables import EXACT_SCORES
from lorif_assets.lake.lake import Lake


@dataclass(frozen=True)
class ExactRank:
    """The rank of an example among those of its side that were ranked again by whole gradients, and its score by them."""

    rank: int
    score: float


def exact_ranks(lake: Lake, checkpoint: str, query_set: str) -> Mapping[tuple[str, str, str, str], ExactRank]:
    """Return exact ranks by query, side, shard and example; none that belong to other scores than the stored ones."""
    rows = rows_beside_scores(lake, EXACT_SCORES, checkpoint, query_set)
    key = ("query_id", "side", "shard", "example_id")
    return {
        (query_id, side, shard, example_id): ExactRank(rank, score)
        for query_id, side, shard, example_id, rank, score in rows.select(*key, "rank", "score").iter_rows()
    }
