"""What was found outside, as partitions of Dagster's."""

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.freshness.discovery import Discovered


def new_partitions(instance: dg.DagsterInstance, found: Discovered) -> list[dg.AddDynamicPartitionsRequest]:
    """Return the requests that add what was found and is no partition yet."""
    wanted = (
        (partitions.shards, found.shards),
        (partitions.checkpoints, found.checkpoints),
        (partitions.query_sets, found.query_sets),
        (partitions.layers, found.layers),
        (partitions.subsets, found.subsets),
    )
    requests = []
    for definition, names in wanted:
        known = set(definition.get_partition_keys(dynamic_partitions_store=instance))
        missing = [name for name in names if name not in known]
        if missing:
            requests.append(definition.build_add_request(missing))
    return requests


def register(instance: dg.DagsterInstance, found: Discovered) -> None:
    """Add what was found as partitions."""
    for request in new_partitions(instance, found):
        instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
