"""What the lake holds of a checkpoint to score queries with, and which checkpoints' scores are averaged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorif_assets.attribution.curvatures import curvature_of
from lorif_assets.attribution.model import CheckpointRecord, checkpoint_record
from lorif_assets.attribution.stored_curvature import StoredPreconditioners, stored_preconditioners
from lorif_assets.attribution.stored_factors import StoredFactors, stored_factors
from lorif_assets.attribution.versions import averaged_version, score_version
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import CHECKPOINTS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints


@dataclass(frozen=True)
class StoredAttribution:
    """A checkpoint's record, gradient factors and preconditioners, which belong together."""

    record: CheckpointRecord
    factors: StoredFactors
    preconditioners: StoredPreconditioners

    @classmethod
    def of(cls, lake: Lake, record: CheckpointRecord, recipe: Recipe) -> "StoredAttribution":
        """Look up a recorded checkpoint's factors and preconditioners.

        Raises:
            MismatchError: some are missing, or were computed from something else than the rest.
        """
        factors = stored_factors(lake, record, recipe)
        return cls(record, factors, stored_preconditioners(lake, record, recipe, factors))

    def score_version(self, recipe: Recipe, query_set_hash: str) -> str:
        """Return the version of a query set's scores by this checkpoint alone."""
        return score_version(
            recipe, self.record, self.factors.shard_hashes, query_set_hash, self.preconditioners.refined_bases
        )


def averaged_together(
    settings: Settings, lake: Lake, checkpoints: Checkpoints, record: CheckpointRecord
) -> Sequence[CheckpointRecord]:
    """Return the checkpoints whose scores are averaged for one of them, which comes last.

    Before it come the active ones before it, in order of step, then name, that were recorded under the factor recipe of
    now and whose files are still there, `recipe.averaged_checkpoints` at most with itself.
    """
    wanted = settings.recipe.averaged_checkpoints
    if wanted == 1:
        return [record]
    recorded = set(lake.read(CHECKPOINTS, ["checkpoint"], recipe_hash=settings.recipe.factor_hash)["checkpoint"])
    active = settings.active.checkpoints
    names = [
        checkpoint.name
        for checkpoint in checkpoints.find()
        if checkpoint.name in recorded and (active == "all" or checkpoint.name in active)
    ]
    before = names[: names.index(record.name)] if record.name in names else []
    return [*(checkpoint_record(lake, name, settings.recipe) for name in before[1 - wanted :]), record]


def attributions_together(
    settings: Settings, lake: Lake, checkpoints: Checkpoints, record: CheckpointRecord
) -> list[StoredAttribution]:
    """Look up the factors and preconditioners of the checkpoints whose scores are averaged for one, which comes last.

    Raises:
        MismatchError: some are missing, or were computed from something else than the rest of their checkpoint.
    """
    return [
        StoredAttribution.of(lake, one, settings.recipe)
        for one in averaged_together(settings, lake, checkpoints, record)
    ]


def current_score_versions(
    settings: Settings,
    lake: Lake,
    checkpoints: Checkpoints,
    record: CheckpointRecord,
    shard_hashes: Mapping[str, str],
    query_set_hashes: Mapping[str, str],
) -> dict[str, str]:
    """Return the version that each query set's scores at a checkpoint would have if all examples were scored now."""
    together = averaged_together(settings, lake, checkpoints, record)
    curvature = curvature_of(settings.recipe)
    bases = {one.name: curvature.refined_bases(lake, one.name) for one in together}
    return {
        query_set: averaged_version(
            [score_version(settings.recipe, one, shard_hashes, found, bases[one.name]) for one in together]
        )
        for query_set, found in query_set_hashes.items()
    }
