"""The evaluation tells training examples by their ids alone, across shards."""

import polars as pl

from lorif_assets.errors import MismatchError


def require_unique_ids(examples: pl.DataFrame) -> None:
    """Refuse training examples of which two have one id: scores, subsets and losses of one would be taken for the other's.

    Args:
        examples: with the columns shard and example_id.

    Raises:
        MismatchError: as it says.
    """
    repeated = (
        examples.group_by("example_id")
        .agg(pl.len(), pl.col("shard").sort())
        .filter(pl.col("len") > 1)
        .sort("example_id")
    )
    if repeated.is_empty():
        return
    name, _, shards = repeated.row(0)
    raise MismatchError(
        f"{repeated.height:,} ids are those of several training examples ({name!r} of the shards {shards[0]!r} and "
        f"{shards[1]!r}), and the evaluation tells examples by their ids: leave `columns.id` out of one of the sources, "
        "or name a column whose ids no other source has"
    )
