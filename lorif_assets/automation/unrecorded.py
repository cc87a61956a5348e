"""Partitions that the lake holds as they should be, while Dagster takes them for failed.

A run that dies between its commit to the lake and the event that records it leaves one behind: nothing is out of date,
so that no later run would ever record it.
"""

from collections.abc import Collection, Mapping

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from lorif_assets.assets.graph import assets_in_use
from lorif_assets.assets.partitions import CHECKPOINT, LAYER
from lorif_assets.freshness.stale import Stale, StalePartitions
from lorif_assets.freshness.staleness import Staleness
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.tables import TABLES

_UNRECORDED = Stale("its run failed after it was stored", "recorded")


def unrecorded(
    instance: dg.DagsterInstance, staleness: Staleness, asset: dg.AssetsDefinition, stale: Collection[str]
) -> StalePartitions:
    """Return the partitions of an asset to run again only so that Dagster knows of them.

    Args:
        instance: Dagster's instance.
        staleness: what is active.
        asset: one of the graph.
        stale: its partitions that are out of date in the lake.
    """
    definition = asset.partitions_def
    if definition is None or asset not in assets_in_use(staleness.settings):
        return {}
    if not instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.FAILURE])):
        return {}
    active = {
        *staleness.active_checkpoints,
        *staleness.active_query_sets,
        *staleness.found.shards,
        *staleness.found.layers,
    }
    keys = definition.get_partition_keys(dynamic_partitions_store=instance)
    states = instance.get_status_by_partition(asset.key, keys, definition) or {}
    failed = [
        key
        for key, state in states.items()
        if state is AssetPartitionStatus.FAILED and key not in stale and active.issuperset(key.split("|"))
    ]
    layers = {record.name: record.layer_shapes.keys() for record in staleness.records()} if failed else {}
    return {key: _UNRECORDED for key in failed if _is_stored(staleness.lake, layers, asset, definition, key)}


def _is_stored(
    lake: Lake,
    layers: Mapping[str, Collection[str]],
    asset: dg.AssetsDefinition,
    definition: dg.PartitionsDefinition[str],
    key: str,
) -> bool:
    """Whether the lake holds the partition, of a layer that its checkpoint is tracked in."""
    schema = TABLES[asset.metadata_by_key[asset.key]["dagster/table_name"]]
    columns = (
        definition.partition_dimension_names
        if isinstance(definition, dg.MultiPartitionsDefinition)
        else schema.partition_by[:1]
    )
    where = dict(zip(columns, key.split("|"), strict=True))
    if LAYER in where and where[LAYER] not in layers.get(where[CHECKPOINT], ()):
        return False
    return not lake.read(schema, list(columns), **where).is_empty()
