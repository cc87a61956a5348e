"""What MLflow is told of a checkpoint and of its project, besides figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CheckpointFacts:
    """What the run of a checkpoint says of it. Runs of other lakes, and of other recipes, are others.

    `step` is the training step, None where it is not known. `project` is the name of the project, which without one has no
    run of its own; `lake` is where its tables are, and `recipe` the hash of what its scores are computed by. `params` are the
    recipe, `tags` are for both runs, and the notes, in Markdown, for one of them.
    """

    step: int | None = None
    project: str = ""
    lake: str = ""
    recipe: str = ""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    checkpoint_tags: Mapping[str, str] = field(default_factory=dict)
    checkpoint_note: str = ""
    project_note: str = ""


@dataclass(frozen=True)
class TrackedDataset:
    """One source of training data as MLflow lists it; `digest` is a hash of what was read of it.

    `source_type` and `source` are MLflow's names of where it is, the latter JSON; so are `schema` and `profile`.
    """

    name: str
    digest: str
    source_type: str
    source: str
    schema: str
    profile: str
