"""What lies outside and could be attributed: shards of the sources, checkpoints and their layers, query sets."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from lorif_assets.data.query_files import survey_queries
from lorif_assets.data.shards import survey
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.retraining.subset_names import subsets
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.project import Project

NO_SOURCES = "lorif.toml names no [[sources]]: nothing to attribute to. `lorif init` writes a template"


@dataclass(frozen=True)
class Discovered:
    """Names of partitions: shards, checkpoints in the order of their steps, query sets, recorded checkpoints' layers, and
    the random subsets that an evaluation retrains on. `notes` say which checkpoints were passed over, and why.

    `faults` says what could not be looked at, and why, by what it is; everything else goes on. A file of training data that
    cannot be read is a shard, which fails. `unread_prefixes` is what names of shards begin with that may be there unseen.
    """

    shards: tuple[str, ...]
    checkpoints: tuple[str, ...]
    query_sets: tuple[str, ...]
    layers: tuple[str, ...]
    subsets: tuple[str, ...] = ()
    faults: Mapping[str, str] = field(default_factory=dict)
    unread_prefixes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def discover(project: Project) -> Discovered:
    """Look at the sources, the checkpoint directory and the query files; nothing large is read.

    A checkpoint that is still being written is left for the next look. Layers come from the lake: the asset
    `checkpoints` adds them as it records one, but a lake may be older than the Dagster instance that looks at it.

    Raises:
        SettingsError: there is no source.
        SourceError, CheckpointError: a path of the settings does not exist or holds nothing usable, and no other source does.
    """
    settings = project.settings
    if not settings.sources:
        raise SettingsError(NO_SOURCES)
    sources, queries = survey(settings.sources, settings.base), survey_queries(settings)
    looked = project.checkpoints.look()
    faults = {checkpoint: checkpoint.fault() for checkpoint in looked.checkpoints}
    in_writing = {checkpoint for checkpoint, fault in faults.items() if fault and checkpoint.may_be_in_writing()}
    return Discovered(
        tuple(piece.shard for piece in sources.shards),
        tuple(checkpoint.name for checkpoint, fault in faults.items() if fault is None),
        tuple(queries.files),
        tuple(
            dict.fromkeys(
                layer["layer"]
                for layers in project.lake.without_damaged().read(CHECKPOINTS, ["layers"])["layers"]
                for layer in json.loads(layers)
            )
        ),
        tuple(subsets(settings)),
        {
            **{f"source {name}": fault for name, fault in sources.faults.items()},
            **{f"query set {name}": fault for name, fault in queries.faults.items()},
            **{
                f"checkpoint {checkpoint.name}": fault
                for checkpoint, fault in faults.items()
                if fault and checkpoint not in in_writing
            },
        },
        sources.unread_prefixes,
        (
            *looked.notes,
            *(f"the checkpoint {one.name} is left out: {faults[one]}" for one in faults if one in in_writing),
        ),
    )
