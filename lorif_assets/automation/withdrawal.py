"""Withdrawing shards whose rows left their source: their rows leave the tables, and curvature states subtract them.

Of a shard whose rows stand in part in other shards, those rows leave alone.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg
import polars as pl
import pyarrow as pa
from dagster._core.definitions.data_version import DATA_VERSION_IS_USER_PROVIDED_TAG, DATA_VERSION_TAG

from lorif_assets.assets import partitions
from lorif_assets.data.examples import hash_of_rows
from lorif_assets.freshness.leftovers import Fate, LeftoverShard, removed_shards, shards_of
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.data_tables import KEPT_SHARDS, REJECTED, TRAINING_EXAMPLES
from lorif_assets.lake.influcoder_tables import INFLUENCE_EMBEDDINGS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_writing import with_constants

__all__ = ["carry_out", "cut", "keep", "removed_shards", "withdraw"]

# A shard that comes back to its source is then read again, even from a file that has the time of before.
_CUT = "cut"


def carry_out(
    lake: Lake, instance: dg.DagsterInstance, shards: Collection[LeftoverShard], on_removed: str
) -> list[str]:
    """Do what a value of `automation.on_removed` says of leftover shards, and return what was done, in words."""
    withdrawn = shards_of(shards, on_removed, Fate.WITHDRAWN)
    withdraw(lake, instance, [one.shard for one in withdrawn])
    done = [
        f"{one.shard} is withdrawn: no source names it any more, and of its {one.n_rows:,} rows {len(one.superseded):,} "
        "stand in other shards"
        for one in withdrawn
    ]
    for one in shards_of(shards, on_removed, Fate.CUT):
        cut(lake, instance, one)
        done.append(
            f"{len(one.superseded):,} of {one.n_rows:,} rows of {one.shard} are withdrawn: other shards have them"
        )
    return done


def withdraw(lake: Lake, instance: dg.DagsterInstance, shards: Sequence[str]) -> None:
    """Take shards out of the tables and of Dagster's partitions.

    Preconditioners and scores are then out of date, and are brought up to date by subtracting the shards. What a crash
    leaves undone is found again by `removed_shards`.
    """
    if not shards:
        return
    lake.remove(TRAINING_EXAMPLES, shard=shards)
    lake.remove(KEPT_SHARDS, shard=shards)
    for stage, parts in _rejected_parts(lake, shards).items():
        lake.remove(REJECTED, stage=[stage], part=parts)
    lake.remove(INFLUENCE_EMBEDDINGS, shard=shards)
    # The factors come last: by them, `removed_shards` sees that something is left.
    lake.remove(GRADIENT_FACTORS, shard=shards)
    for shard in shards:
        instance.delete_dynamic_partition(str(partitions.shards.name), shard)


def cut(lake: Lake, instance: dg.DagsterInstance, leftover: LeftoverShard) -> None:
    """Take the superseded rows out of a leftover shard; its factors are then out of date, and computed without them.

    Nothing outside says what the shard is then: Dagster is told here.
    """
    rows = lake.read(TRAINING_EXAMPLES, shard=leftover.shard).sort("row")
    left = rows.filter(~pl.col("row").is_in(leftover.superseded)).to_arrow()
    constants = {"shard_hash": hash_of_rows(left.to_pylist()), "source_version": _CUT}
    lake.replace(TRAINING_EXAMPLES, {"shard": leftover.shard}, with_constants(left, constants))
    set_aside = {"stage": TRAINING_EXAMPLES.name, "part": leftover.shard}
    lake.replace(REJECTED, set_aside, REJECTED.columns.empty_table())
    tags = {DATA_VERSION_TAG: constants["shard_hash"], DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
    instance.report_runless_asset_event(
        dg.AssetMaterialization(TRAINING_EXAMPLES.name, partition=leftover.shard, tags=tags)
    )


def keep(lake: Lake, shards: Iterable[str]) -> None:
    """Record that leftover shards stay in the scores, as they are now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for shard in shards:
        (shard_hash,) = lake.read(TRAINING_EXAMPLES, ["shard_hash"], shard=shard)["shard_hash"].unique()
        row = {"shard": shard, "shard_hash": shard_hash, "decided": now}
        lake.replace(KEPT_SHARDS, {"shard": shard}, pa.Table.from_pylist([row], schema=KEPT_SHARDS.columns))


def _rejected_parts(lake: Lake, shards: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return by stage the partitions of `rejected` with rows of some shards, set aside as they were read or at a checkpoint."""
    stages = (TRAINING_EXAMPLES.name, GRADIENT_FACTORS.name)
    found = lake.read(REJECTED, ["stage", "part"], stage=stages).unique()
    chosen = found.filter(pl.col("part").str.split("|").list.last().is_in(shards))
    return {stage: chosen.filter(pl.col("stage") == stage)["part"].to_list() for stage in stages}
