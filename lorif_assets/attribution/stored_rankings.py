"""The two rankings of training examples that the lake holds of a query set at a checkpoint."""

from collections.abc import Mapping
from typing import Literal, get_args

import polars as pl

from lorif_assets.errors import SettingsError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES, RELATIVE_SCORES
from lorif_assets.lake.lake import Lake

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


def stored_ranking(lake: Lake, checkpoint: str, query_set: str, ranking: Ranking) -> pl.DataFrame:
    """Return the stored rows of a ranking; none of the relative one beside scores that an earlier version stored alone."""
    partition = {"checkpoint": checkpoint, "query_set": query_set}
    if ranking == "plain":
        return lake.read(QUERY_SCORES, **partition)
    versions = lake.read(QUERY_SUMMARIES, ["computed_from"], **partition)["computed_from"].unique()
    return lake.read(RELATIVE_SCORES, **partition).filter(pl.col("computed_from").is_in(versions.implode()))
