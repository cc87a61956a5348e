"""The states of partitions, which Dagster's pages count: Dagster keeps them until an asset's partitions change.

Then the next page that asks goes through all materializations, those of checkpoints that left Dagster among them: 300,000 take
6 s. So they are counted before a page asks.
"""

from collections.abc import Iterable

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.config.content_hash import content_hash


def partitions_id(instance: dg.DagsterInstance) -> str:
    """Return what stands for all partitions as they are now."""
    definitions = (
        partitions.shards,
        partitions.checkpoints,
        partitions.query_sets,
        partitions.layers,
        partitions.subsets,
    )
    return content_hash(
        [definition.get_partition_keys(dynamic_partitions_store=instance) for definition in definitions]
    )


def count_states(instance: dg.DagsterInstance, assets: Iterable[AttributionAsset]) -> None:
    """Have Dagster bring up to date what it keeps of the states of the assets' partitions."""
    for asset in assets:
        instance.get_status_by_partition(asset.key, [], asset.partitions)
