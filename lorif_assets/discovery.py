"""What lies outside and could be attributed: shards of the sources, checkpoints, query sets."""

from dataclasses import dataclass

import dagster as dg

from lorif_assets import partitions
from lorif_assets.query_files import query_files
from lorif_assets.settings import Settings
from resources.models import Checkpoints
from resources.source_files import list_all_shards


@dataclass(frozen=True)
class Discovered:
    """Names of partitions: shards, checkpoints in the order of their steps, query sets."""

    shards: tuple[str, ...]
    checkpoints: tuple[str, ...]
    query_sets: tuple[str, ...]


def discover(settings: Settings, model_checkpoints: Checkpoints) -> Discovered:
    """Look at the sources, the checkpoint directory and the query files; nothing large is read.

    Raises:
        SourceError, CheckpointError: a path of the settings is not there or holds nothing usable.
    """
    return Discovered(
        tuple(piece.shard for piece in list_all_shards(settings.sources, settings.base)),
        tuple(checkpoint.name for checkpoint in model_checkpoints.find()),
        tuple(query_files(settings)),
    )


def new_partitions(instance: dg.DagsterInstance, found: Discovered) -> list[dg.AddDynamicPartitionsRequest]:
    """Return the requests that add what was found and is no partition yet."""
    wanted = (
        (partitions.shards, found.shards),
        (partitions.checkpoints, found.checkpoints),
        (partitions.query_sets, found.query_sets),
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
