"""Which checkpoints are compared, in which order, and the version of what is compared."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.attribution_tables import CHECKPOINT_COMPARISONS, CHECKPOINTS, QUERY_SUMMARIES
from lorif_assets.lake.lake import Lake

NO_SCORES = "it has no scores for this query set"


@dataclass(frozen=True)
class ScoredCheckpoint:
    """A checkpoint and the version of its scores for one query set."""

    name: str
    step: int | None
    version: str


@dataclass(frozen=True)
class Neighbours:
    """Two checkpoints that follow each other in a comparison."""

    older: ScoredCheckpoint
    newer: ScoredCheckpoint

    @property
    def version(self) -> str:
        """Hash of both checkpoints' scores."""
        return content_hash([self.older.version, self.newer.version])


@dataclass(frozen=True)
class Participants:
    """The checkpoints compared for one query set, in order of step, then name.

    `exclusions` has the reason for each checkpoint that is left out.
    """

    checkpoints: tuple[ScoredCheckpoint, ...]
    exclusions: Mapping[str, str]

    @property
    def neighbours(self) -> tuple[Neighbours, ...]:
        """Every two checkpoints that follow each other; none if fewer than two are compared."""
        return tuple(Neighbours(older, newer) for older, newer in pairwise(self.checkpoints))

    @property
    def version(self) -> str:
        """Hash of the names of the compared checkpoints and of their scores."""
        return _version((pair.older.name, pair.newer.name, pair.version) for pair in self.neighbours)


def participants(lake: Lake, query_sets: Collection[str], recipe: Recipe) -> dict[str, Participants]:
    """Return for each query set the checkpoints whose scores exist and were computed under this recipe."""
    steps: dict[str, int | None] = dict(lake.read(CHECKPOINTS, ["checkpoint", "step"]).iter_rows())
    columns = ["query_set", "checkpoint", "recipe_hash", "computed_from"]
    scored: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in query_sets}
    for query_set, checkpoint, score_hash, version in (
        lake.read(QUERY_SUMMARIES, columns, query_set=list(query_sets)).unique().iter_rows()
    ):
        scored[query_set][checkpoint] = score_hash, version
    return {query_set: _participants(steps, found, recipe) for query_set, found in scored.items()}


def compared_versions(lake: Lake) -> dict[str, str]:
    """Return for each query set with a stored comparison the version of what was compared."""
    columns = ["query_set", "from_checkpoint", "to_checkpoint", "computed_from"]
    pairs: dict[str, list[tuple[str, str, str]]] = {}
    for query_set, *pair in lake.read(CHECKPOINT_COMPARISONS, columns).unique().iter_rows():
        pairs.setdefault(query_set, []).append((pair[0], pair[1], pair[2]))
    return {query_set: _version(found) for query_set, found in pairs.items()}


def _participants(
    steps: Mapping[str, int | None], scored: Mapping[str, tuple[str, str]], recipe: Recipe
) -> Participants:
    # A checkpoint whose name has no step comes first, as it does when checkpoints are found.
    ordered = sorted({*steps, *scored}, key=lambda name: (-1 if (step := steps.get(name)) is None else step, name))
    compared, exclusions = [], {}
    for name in ordered:
        score_hash, version = scored.get(name, ("", ""))
        if name not in scored:
            exclusions[name] = NO_SCORES
        elif score_hash != recipe.score_hash:
            exclusions[name] = (
                f"its scores were computed under the recipe {score_hash}, the settings are {recipe.score_hash}"
            )
        else:
            compared.append(ScoredCheckpoint(name, steps.get(name), version))
    return Participants(tuple(compared), exclusions)


def _version(pairs: Iterable[tuple[str, str, str]]) -> str:
    return content_hash(sorted(pairs))
