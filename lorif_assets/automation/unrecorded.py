"""Partitions that are up to date in the lake but failed for Dagster.

A run that dies between its commit to the lake and the event that records it leaves one behind: nothing is out of date, so
no later run would ever record it.
"""

from collections.abc import Collection, Mapping

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.assets.partitions import CHECKPOINT, LAYER, dimensions
from lorif_assets.freshness.stale import Stale, StalePartitions
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.lake import Lake

_UNRECORDED = Stale("its run failed after it was stored", "recorded")


def unrecorded(
    instance: dg.DagsterInstance, freshness: Freshness, asset: AttributionAsset, stale: Collection[str]
) -> StalePartitions:
    """Return the partitions of an asset to run again only so that Dagster knows of them.

    Args:
        instance: Dagster's instance.
        freshness: of the project.
        asset: one of the graph.
        stale: its partitions that are out of date in the lake.
    """
    if asset.on_demand or not asset.is_used(freshness.settings):
        return {}
    if not instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.FAILURE])):
        return {}
    active = {
        *freshness.active_checkpoints,
        *freshness.active_query_sets,
        *freshness.discovered.shards,
        *freshness.discovered.layers,
    }
    keys = asset.partitions.get_partition_keys(dynamic_partitions_store=instance)
    states = instance.get_status_by_partition(asset.key, keys, asset.partitions) or {}
    failed = [
        key
        for key, state in states.items()
        if state is AssetPartitionStatus.FAILED and key not in stale and active.issuperset(key.split("|"))
    ]
    layers = {record.name: record.layer_shapes.keys() for record in freshness.records} if failed else {}
    return {key: _UNRECORDED for key in failed if _is_stored(freshness.lake, layers, asset, key)}


def _is_stored(lake: Lake, layers: Mapping[str, Collection[str]], asset: AttributionAsset, key: str) -> bool:
    """Whether the lake holds the partition, and its layer, if it has one, is tracked at its checkpoint."""
    where = dict(zip(dimensions(asset.partitions), key.split("|"), strict=True))
    if LAYER in where and where[LAYER] not in layers.get(where[CHECKPOINT], ()):
        return False
    return not lake.read(asset.table, list(where), **where).is_empty()
