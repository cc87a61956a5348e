"""What lies outside and could be attributed: shards of the sources, checkpoints and their layers, query sets."""

import json
from dataclasses import dataclass

from lorif_assets.data.query_files import query_files
from lorif_assets.data.shards import list_all_shards
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.retraining.subset_names import subsets
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.project import Project

NO_SOURCES = "lorif.toml names no [[sources]]: nothing to attribute to. `lorif init` writes a template"


@dataclass(frozen=True)
class Discovered:
    """Names of partitions: shards, checkpoints in the order of their steps, query sets, recorded checkpoints' layers, and
    the random subsets that an evaluation retrains on. `notes` say which checkpoints were passed over, and why.
    """

    shards: tuple[str, ...]
    checkpoints: tuple[str, ...]
    query_sets: tuple[str, ...]
    layers: tuple[str, ...]
    subsets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def discover(project: Project) -> Discovered:
    """Look at the sources, the checkpoint directory and the query files; nothing large is read.

    A checkpoint that is still being written is left for the next look. Layers come from the lake: the asset
    `checkpoints` adds them as it records one, but a lake may be older than the Dagster instance that looks at it.

    Raises:
        SettingsError: there is no source.
        SourceError, CheckpointError: a path of the settings does not exist or holds nothing usable.
    """
    settings = project.settings
    if not settings.sources:
        raise SettingsError(NO_SOURCES)
    shards = tuple(piece.shard for piece in list_all_shards(settings.sources, settings.base))
    found = project.checkpoints.look()
    faults = {checkpoint.name: checkpoint.fault() for checkpoint in found.checkpoints}
    return Discovered(
        shards,
        tuple(name for name, fault in faults.items() if fault is None),
        tuple(query_files(settings)),
        tuple(
            dict.fromkeys(
                layer["layer"]
                for layers in project.lake.read(CHECKPOINTS, ["layers"])["layers"]
                for layer in json.loads(layers)
            )
        ),
        tuple(subsets(settings)),
        (*found.notes, *(f"the checkpoint {name} is left out: {fault}" for name, fault in faults.items() if fault)),
    )
