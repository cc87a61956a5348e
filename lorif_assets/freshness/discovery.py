"""What lies outside and could be attributed: shards of the sources, checkpoints and their layers, query sets."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from lorif_assets.data.query_files import survey_queries
from lorif_assets.data.shards import survey
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.retraining.subset_names import subsets
from lorif_assets.freshness.incomplete import LookedCheckpoints, look_at_checkpoints
from lorif_assets.hub.snapshots import asked_once
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.project import Project

NO_SOURCES = "lorif.toml names no [[sources]]: nothing to attribute to. `lorif init` writes a template"


@dataclass(frozen=True)
class Discovered:
    """Names of partitions: shards, checkpoints in the order of their steps, query sets, recorded checkpoints' layers, and
    the random subsets that an evaluation retrains on. `notes` say which checkpoints were passed over, and why.

    `faults` says what could not be looked at, and why, by what it is; everything else goes on. A file of training data that
    cannot be read is a shard, which fails. `unread_prefixes` is what names of shards begin with that may be there unseen,
    `shard_sources` the source of each shard, `looked` what was found of checkpoints, the incomplete ones included.
    """

    shards: tuple[str, ...]
    checkpoint_files: tuple[CheckpointFiles, ...]
    query_sets: tuple[str, ...]
    layers: tuple[str, ...]
    subsets: tuple[str, ...] = ()
    faults: Mapping[str, str] = field(default_factory=dict)
    unread_prefixes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shard_sources: Mapping[str, str] = field(default_factory=dict)
    looked: LookedCheckpoints = field(default_factory=lambda: LookedCheckpoints((), {}))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The names of the checkpoints."""
        return tuple(checkpoint.name for checkpoint in self.checkpoint_files)


@asked_once()
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
    looked = look_at_checkpoints(project)
    return Discovered(
        tuple(piece.shard for piece in sources.shards),
        looked.complete,
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
            **{f"checkpoint {name}": fault for name, fault in looked.faults.items() if name not in looked.waiting},
        },
        sources.unread_prefixes,
        (
            *looked.sentences(active=settings.active.checkpoints),
            *sources.notes,
        ),
        {piece.shard: piece.source for piece in sources.shards},
        looked,
    )
