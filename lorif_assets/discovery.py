"""What lies outside and could be attributed: shards of the sources, checkpoints and their layers, query sets."""

import json
from dataclasses import dataclass

import dagster as dg

from lorif_assets import partitions
from lorif_assets.errors import SettingsError
from lorif_assets.query_files import query_files
from lorif_assets.retraining.subset_names import subsets
from lorif_assets.settings import Settings
from resources.lake import Lake
from resources.models import Checkpoints
from resources.schemas import CHECKPOINTS
from resources.source_files import list_all_shards

NO_SOURCES = "lorif.toml names no [[sources]]: nothing to attribute to. `lorif init` writes a template"


@dataclass(frozen=True)
class Discovered:
    """Names of partitions: shards, checkpoints in the order of their steps, query sets, recorded checkpoints' layers, and
    the random subsets that an evaluation retrains on.
    """

    shards: tuple[str, ...]
    checkpoints: tuple[str, ...]
    query_sets: tuple[str, ...]
    layers: tuple[str, ...]
    subsets: tuple[str, ...] = ()


def discover(settings: Settings, model_checkpoints: Checkpoints, lake: Lake) -> Discovered:
    """Look at the sources, the checkpoint directory and the query files; nothing large is read.

    A checkpoint that is still being written is left for the next look. Layers come from the lake: the asset
    `checkpoints` adds them as it records one, but a lake may be older than the Dagster instance that looks at it.

    Raises:
        SettingsError: there is no source.
        SourceError, CheckpointError: a path of the settings is not there or holds nothing usable.
    """
    if not settings.sources:
        raise SettingsError(NO_SOURCES)
    return Discovered(
        tuple(piece.shard for piece in list_all_shards(settings.sources, settings.base)),
        tuple(checkpoint.name for checkpoint in model_checkpoints.find() if checkpoint.is_complete()),
        tuple(query_files(settings)),
        tuple(
            dict.fromkeys(
                layer["layer"]
                for layers in lake.read(CHECKPOINTS, ["layers"])["layers"]
                for layer in json.loads(layers)
            )
        ),
        tuple(subsets(settings)),
    )


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
