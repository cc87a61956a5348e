"""What was discovered outside, as Dagster's partitions."""

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.freshness.discovery import Discovered


def new_partitions(instance: dg.DagsterInstance, discovered: Discovered) -> list[dg.AddDynamicPartitionsRequest]:
    """Return the requests that add what was discovered and is not a partition yet."""
    names_by_definition = (
        (partitions.shards, discovered.shards),
        (partitions.checkpoints, discovered.checkpoints),
        (partitions.query_sets, discovered.query_sets),
        (partitions.layers, discovered.layers),
        (partitions.subsets, discovered.subsets),
    )
    requests = []
    for definition, names in names_by_definition:
        known = set(definition.get_partition_keys(dynamic_partitions_store=instance))
        missing = [name for name in names if name not in known]
        if missing:
            requests.append(definition.build_add_request(missing))
    return requests


def register(instance: dg.DagsterInstance, discovered: Discovered) -> None:
    """Add what was discovered as partitions."""
    for request in new_partitions(instance, discovered):
        partitions.add_partitions(instance, request.partitions_def_name, list(request.partition_keys))
