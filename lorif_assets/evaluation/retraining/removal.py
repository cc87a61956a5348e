"""Removal: retraining without the proponents of a query set, compared with leaving out as many other examples."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from lorif_assets.attribution.versions import ledger_version
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores
from lorif_assets.evaluation.retraining.query_losses import query_set_losses
from lorif_assets.evaluation.retraining.training_recipe import retrained_model, training_recipe
from lorif_assets.lake.attribution_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.evaluation_tables import REMOVAL_LOSSES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.project import Project

NOTHING = "none"


@dataclass(frozen=True)
class Removal:
    """One model to retrain: without the first `n_removed` examples of a method's ranking for a whole query set."""

    method: str
    n_removed: int
    seed: int

    @property
    def name(self) -> str:
        """Partition of its losses."""
        return f"{self.method}-{self.n_removed}-seed-{self.seed}"


def planned_removals(settings: Settings, n_examples: int) -> list[Removal]:
    """Return the models to retrain; those on all examples come first."""
    evaluation = settings.evaluation
    seeds = range(evaluation.seed, evaluation.seed + evaluation.removal_seeds)
    counts = sorted({max(1, round(share * n_examples)) for share in evaluation.removal_shares})
    return [
        *(Removal(NOTHING, 0, seed) for seed in seeds),
        *(
            Removal(str(method), count, seed)
            for seed in seeds
            for count in counts
            for method in evaluation.removal_methods
        ),
    ]


def set_proponents(
    scores: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the positions of examples by their influence on all queries [Q, N] together, the largest first.

    Each query's scores are divided by their spread, so that queries count alike.
    """
    spread = scores.std(axis=1, keepdims=True)
    return np.argsort(-(scores / np.where(spread > 0, spread, 1)).sum(axis=0), kind="stable")


def removal_versions(
    settings: Settings, lake: Lake, query_set: str, removals: Sequence[Removal], method_versions: Mapping[str, str]
) -> Mapping[str, str]:
    """Return by removal the hash of what its losses depend on; if nothing is removed, no method's scores are part of it."""
    data = ledger_version(dict(lake.read(TRAINING_EXAMPLES, ["shard", "shard_hash"]).unique().iter_rows()))
    queries = lake.read(QUERY_EXAMPLES, ["query_set_hash"], query_set=query_set)["query_set_hash"].unique().to_list()
    recipe = settings.recipe
    constants = [data, training_recipe(settings.evaluation), queries, recipe.model_dtype, recipe.query_tokens_version]
    return {
        removal.name: content_hash([*constants, removal.name, method_versions.get(removal.method)])
        for removal in removals
    }


def stored_removal_versions(lake: Lake, checkpoint: str, query_set: str) -> Mapping[str, str]:
    """Return by removal the version of its stored losses."""
    rows = lake.read(REMOVAL_LOSSES, ["removal", "computed_from"], checkpoint=checkpoint, query_set=query_set)
    return dict(rows.unique().iter_rows())


def retrain_without(
    project: Project,
    checkpoint: str,
    query_set: str,
    scores: EvaluatedScores,
    versions: Mapping[Removal, str],
    devices: DeviceGroup,
) -> Iterator[tuple[Removal, pl.DataFrame]]:
    """Retrain one model after the other, and store and yield each one's losses as soon as they are computed."""
    settings, lake = project.settings, project.lake
    examples = lake.read(TRAINING_EXAMPLES).sort("shard", "row")
    for removal, version in versions.items():
        removed: list[str] = []
        if removal.method != NOTHING:
            order = set_proponents(scores.by_method[removal.method])
            removed = [scores.example_ids[at] for at in order[: removal.n_removed]]
        folder = Path(settings.resolve(settings.evaluation.directory), "removals", query_set, removal.name)
        kept = examples.filter(~pl.col("example_id").is_in(removed)).to_arrow()
        model = retrained_model(settings.evaluation, kept, removal.seed, folder, version)
        losses = query_set_losses(
            lake, [query_set], project.checkpoints, model.checkpoint, settings.recipe, settings.batch.tokens, devices
        )
        partition = {"checkpoint": checkpoint, "query_set": query_set, "removal": removal.name}
        constants = {
            **partition,
            "method": removal.method,
            "n_removed": len(removed),
            "seed": removal.seed,
            "seconds": model.seconds,
            "computed_from": version,
        }
        losses = losses.with_columns(**{name: pl.lit(value) for name, value in constants.items()})
        lake.replace(REMOVAL_LOSSES, partition, losses.to_arrow())
        if not settings.evaluation.keep_models:
            shutil.rmtree(folder)
        yield removal, losses
