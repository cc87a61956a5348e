"""Withdrawing shards whose rows left their source: their rows leave the tables, and curvature states subtract them."""

from collections.abc import Sequence

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.freshness.discovery import Discovered
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, REJECTED, TRAINING_EXAMPLES
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.influcoder_tables import INFLUENCE_EMBEDDINGS
from lorif_assets.lake.lake import Lake


def removed_shards(lake: Lake, discovered: Discovered) -> list[str]:
    """Return the shards that the lake still holds and no source has any more.

    Where a source or a file of it cannot be read, its shards may still be there: they stay.
    """
    tables = (TRAINING_EXAMPLES, GRADIENT_FACTORS)
    stored = {shard for schema in tables for shard in file_constants(lake, schema, ["shard"])["shard"]}
    gone = stored - set(discovered.shards)
    return sorted(shard for shard in gone if not shard.startswith(discovered.unread_prefixes))


def withdraw(lake: Lake, instance: dg.DagsterInstance, shards: Sequence[str]) -> None:
    """Take shards out of the tables and of Dagster's partitions.

    Preconditioners and scores are then out of date, and are brought up to date by subtracting the shards. What a crash
    leaves undone is found again by `removed_shards`.
    """
    for shard in shards:
        lake.replace(TRAINING_EXAMPLES, {"shard": shard}, TRAINING_EXAMPLES.columns.empty_table())
        lake.replace(REJECTED, {"stage": "training_examples", "part": shard}, REJECTED.columns.empty_table())
        # The factors come last: by them, `removed_shards` sees that something is left.
        for schema in (INFLUENCE_EMBEDDINGS, GRADIENT_FACTORS):
            for checkpoint in lake.read(schema, ["checkpoint"], shard=shard)["checkpoint"].unique():
                lake.replace(schema, {"checkpoint": checkpoint, "shard": shard}, schema.columns.empty_table())
        instance.delete_dynamic_partition(str(partitions.shards.name), shard)
