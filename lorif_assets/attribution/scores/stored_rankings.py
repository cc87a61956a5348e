"""The two rankings of training examples that the lake holds of a query set at a checkpoint."""

from collections.abc import Mapping
from typing import Literal, get_args

import polars as pl

from lorif_assets.attribution.scores.score_rows import EVERY, HIGHEST, LOWEST
from lorif_assets.errors import SettingsError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES, RELATIVE_SCORES
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

Ranking = Literal["plain", "relative"]
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)

WHEN_WHICH: Mapping[Ranking, str] = {
    "plain": "what moved this output most, as retraining without it would tell",
    "relative": "what is specific to this output for its size, such as the examples that taught it and were learned by heart",
}
"""What each ranking is for, in words."""


def check_ranking(ranking: object) -> None:
    """Refuse what is no ranking.

    Raises:
        SettingsError: as it says.
    """
    if ranking not in RANKINGS:
        raise SettingsError(f"`ranking` is {' or '.join(map(repr, RANKINGS))}, found {ranking!r}")


def leading_rows(scores: pl.DataFrame, k: int) -> pl.DataFrame:
    """Return the k leading rows of both sides of each query, by `shown_rank`; of every pair, the two ends of the ranking."""
    ranked = scores.filter(pl.col("side") != EVERY).with_columns(shown_rank=pl.col("rank"))
    pairs = scores.filter(pl.col("side") == EVERY)
    ends = [
        pairs.with_columns(side=pl.lit(HIGHEST), shown_rank=pl.col("rank")),
        pairs.with_columns(
            side=pl.lit(LOWEST),
            shown_rank=(pl.col("rank").max().over("query_id") - pl.col("rank") + 1).cast(pl.Int32),
        ),
    ]
    return (
        pl.concat([ranked, *(end.select(ranked.columns) for end in ends)])
        .filter(pl.col("shown_rank") <= k)
        .sort("query_id", "side", "shown_rank")
    )


def stored_ranking(lake: Lake, checkpoint: str, query_set: str, ranking: Ranking) -> pl.DataFrame:
    """Return the stored rows of a ranking; none of the relative one beside scores that an earlier version stored alone."""
    partition = {"checkpoint": checkpoint, "query_set": query_set}
    if ranking == "plain":
        return lake.read(QUERY_SCORES, **partition)
    version = stored_score_version(lake, checkpoint, query_set)
    return lake.read(RELATIVE_SCORES, **partition).filter(pl.col("computed_from") == version)


def rows_beside_scores(lake: Lake, table: TableSchema, checkpoint: str, query_set: str, **filters: str) -> pl.DataFrame:
    """Return the rows of a table that belong to the scores that are stored, not to others; none where there are none."""
    rows = lake.read(table, checkpoint=checkpoint, query_set=query_set, **filters)
    return rows.filter(pl.col("scores_from") == stored_score_version(lake, checkpoint, query_set))


def stored_score_version(lake: Lake, checkpoint: str, query_set: str) -> str:
    """Return the version of a query set's stored scores at a checkpoint; empty if there are none."""
    versions = lake.read(QUERY_SUMMARIES, ["computed_from"], checkpoint=checkpoint, query_set=query_set)
    return str(versions["computed_from"][0]) if versions.height else ""
