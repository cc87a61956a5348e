"""What the explorer replies with: what was asked about, by the names that defaults stood for, and what was found.

`notice` says that what the scores were computed from has changed since; None of scores that are up to date.
"""

from dataclasses import dataclass

from lorif_assets.influences.catalogue import ScoredCheckpoint, ScoredQuery
from lorif_assets.influences.groups import Grouping
from lorif_assets.influences.lengths import LengthBin
from lorif_assets.influences.listing import InfluenceList
from lorif_assets.influences.movement import Movement


@dataclass(frozen=True)
class StoredMethod:
    """A method whose scores are stored, by the name that questions give it and the one that pages give it."""

    name: str
    title: str


@dataclass(frozen=True)
class Overview:
    """What can be looked at: checkpoints with scores and their query sets, in order of step.

    Nothing can be asked of those in `lost`, whose files are gone.
    """

    project: str
    checkpoints: tuple[ScoredCheckpoint, ...]
    lost: tuple[str, ...]


@dataclass(frozen=True)
class Queries:
    """A page of the queries of a set at a checkpoint: those from `offset` on of the `n_found` that were searched for."""

    checkpoint: str
    query_set: str
    queries: tuple[ScoredQuery, ...]
    offset: int
    n_found: int
    notice: str | None


@dataclass(frozen=True)
class Influences:
    """A query at a checkpoint, a page of one side of its ranking, and of a whole ranking its values by length."""

    checkpoint: str
    query: ScoredQuery
    listed: InfluenceList
    lengths: tuple[LengthBin, ...]
    notice: str | None


@dataclass(frozen=True)
class Groups:
    """A query at a checkpoint, and its influence by metadata."""

    checkpoint: str
    query: ScoredQuery
    grouping: Grouping
    notice: str | None


@dataclass(frozen=True)
class QueryMovement:
    """A query, and how its leading examples moved over the checkpoints."""

    query_set: str
    query_id: str
    movement: Movement
    notice: str | None
