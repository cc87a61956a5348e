"""Retraining on data that rankings choose: without the proponents of a query set, or on these alone."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from lorif_assets.attribution.stored.versions import ledger_version
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.settings import Settings
from lorif_assets.data.stored_examples import stored_shard_hashes
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores
from lorif_assets.evaluation.retraining.query_losses import query_set_losses
from lorif_assets.evaluation.retraining.training_recipe import retrained_model, training_recipe
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.evaluation_tables import REMOVAL_LOSSES, SELECTION_LOSSES
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.mathematics.scores.summed_influence import summed_influence
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.project import Project

NOTHING = "none"


@dataclass(frozen=True)
class RankedData:
    """One model to retrain: without, or on, `count` examples of a method's ranking for a whole query set, from a rank on."""

    method: str
    count: int
    seed: int
    first: int = 0
    """Rank of the first of them, from 0."""

    @property
    def name(self) -> str:
        """Partition of its losses."""
        place = f"-from-{self.first}" if self.first else ""
        return f"{self.method}-{self.count}{place}-seed-{self.seed}"


def planned_removals(evaluation: EvaluationSettings, n_examples: int) -> list[RankedData]:
    """Return the models to retrain; those on all examples come first, those without later ranks last."""
    seeds = removal_seeds(evaluation)
    removals = [
        *(RankedData(NOTHING, 0, seed) for seed in seeds),
        *_planned(seeds, evaluation.removal_shares, evaluation.removal_methods, n_examples),
        *(
            RankedData(str(method), end - first, seed, first)
            for seed in seeds
            for first, end in sorted_runs(evaluation, n_examples)
            for method in evaluation.removal_methods
        ),
    ]
    # The first run of ranks may be as long as a share.
    return list(dict.fromkeys(removals))


def removal_seeds(evaluation: EvaluationSettings) -> range:
    """Return the seeds of models that are retrained without examples."""
    return range(evaluation.seed, evaluation.seed + evaluation.removal_seeds)


def count_of(share: float, n_examples: int) -> int:
    """Return how many examples a share of them is."""
    return max(1, round(share * n_examples))


def sorted_runs(evaluation: EvaluationSettings, n_examples: int) -> list[tuple[int, int]]:
    """Return the first and last rank (excluded) of the runs of consecutive ranks that are left out, if any are."""
    from lorif_assets.mathematics.evaluation.removal_effect import runs_of_ranks

    count = evaluation.sorted_subsets
    return runs_of_ranks(n_examples, count) if count else []


def planned_selections(evaluation: EvaluationSettings, n_examples: int) -> list[RankedData]:
    """Return the models to retrain on first examples."""
    seeds = range(evaluation.seed, evaluation.seed + evaluation.selection_seeds)
    return _planned(seeds, evaluation.selection_shares, evaluation.selection_methods, n_examples)


def _planned(
    seeds: Sequence[int], shares: Sequence[float], methods: Sequence[str], n_examples: int
) -> list[RankedData]:
    counts = sorted({count_of(share, n_examples) for share in shares})
    return [RankedData(str(method), count, seed) for seed in seeds for count in counts for method in methods]


@dataclass(frozen=True)
class Experiment:
    """What is done with examples of a ranking, and where the losses after it are stored."""

    table: TableSchema
    part: str
    """The table's partition column of a model; its plural is the name of the models' folder."""
    count: str
    """Its column of the number of examples that a ranking chooses."""
    first: str | None
    """Its column of the rank of the first of them, where it is not always 0."""
    keeps: bool
    """Whether models are trained on these examples alone, or without them."""
    query_sets: Callable[[EvaluationSettings], Sequence[str]]
    plan: Callable[[EvaluationSettings, int], Sequence[RankedData]]
    """The models to train, by the number of training examples."""


REMOVAL = Experiment(
    REMOVAL_LOSSES,
    "removal",
    "n_removed",
    "first_removed",
    keeps=False,
    query_sets=lambda evaluation: evaluation.removal_query_sets,
    plan=planned_removals,
)
SELECTION = Experiment(
    SELECTION_LOSSES,
    "selection",
    "n_selected",
    None,
    keeps=True,
    query_sets=lambda evaluation: evaluation.selection_query_sets,
    plan=planned_selections,
)


def set_proponents(
    scores: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the positions of examples by their influence on all queries [Q, N] together, the largest first."""
    return np.argsort(-summed_influence(scores), kind="stable")


def ranked_data_versions(
    settings: Settings, lake: Lake, query_set: str, planned: Sequence[RankedData], method_versions: Mapping[str, str]
) -> Mapping[str, str]:
    """Return by model the hash of what its losses depend on; of one on everything, no method's scores are part of it."""
    data = ledger_version(stored_shard_hashes(lake))
    queries = lake.read(QUERY_EXAMPLES, ["query_set_hash"], query_set=query_set)["query_set_hash"].unique().to_list()
    recipe = settings.recipe
    constants = [data, training_recipe(settings.evaluation), queries, recipe.model_dtype, recipe.query_tokens_version]
    return {one.name: content_hash([*constants, one.name, method_versions.get(one.method)]) for one in planned}


def stored_ranked_data_versions(
    lake: Lake, experiment: Experiment, checkpoint: str, query_set: str
) -> Mapping[str, str]:
    """Return by model the version of its stored losses."""
    columns = [experiment.part, "computed_from"]
    rows = lake.read(experiment.table, columns, checkpoint=checkpoint, query_set=query_set)
    return dict(rows.unique().iter_rows())


def retrain_on_ranked_data(
    project: Project,
    experiment: Experiment,
    checkpoint: str,
    query_set: str,
    scores: EvaluatedScores,
    versions: Mapping[RankedData, str],
    devices: DeviceGroup,
) -> Iterator[tuple[RankedData, pl.DataFrame]]:
    """Retrain one model after the other, and store and yield each one's losses as soon as they are computed.

    Raises:
        SettingsError: a method that chooses data is not among those that are evaluated.
    """
    settings, lake = project.settings, project.lake
    for chosen in versions:
        if chosen.method not in {NOTHING, *scores.by_method}:
            raise SettingsError(
                f"the method {chosen.method!r} of `evaluation.{experiment.part}_methods` has no scores: name it in "
                "`evaluation.methods` too, or take it out there"
            )
    examples = lake.read(TRAINING_EXAMPLES).sort("shard", "row")
    for chosen, version in versions.items():
        ids: list[str] = []
        if chosen.method != NOTHING:
            order = set_proponents(scores.by_method[chosen.method])
            ids = [scores.example_ids[at] for at in order[chosen.first : chosen.first + chosen.count]]
        folder = Path(settings.resolve(settings.evaluation.directory), f"{experiment.part}s", query_set, chosen.name)
        is_chosen = pl.col("example_id").is_in(ids)
        data = examples.filter(is_chosen if experiment.keeps else ~is_chosen).to_arrow()
        model = retrained_model(settings.evaluation, data, chosen.seed, folder, version)
        losses = query_set_losses(
            lake, [query_set], project.checkpoints, model.checkpoint, settings.recipe, settings.batch.tokens, devices
        )
        partition = {"checkpoint": checkpoint, "query_set": query_set, experiment.part: chosen.name}
        constants = {
            **partition,
            "method": chosen.method,
            experiment.count: len(ids),
            **({experiment.first: chosen.first} if experiment.first else {}),
            "seed": chosen.seed,
            "seconds": model.seconds,
            "computed_from": version,
        }
        losses = losses.with_columns(**{name: pl.lit(value) for name, value in constants.items()})
        lake.replace(experiment.table, partition, losses.to_arrow())
        if not settings.evaluation.keep_models:
            shutil.rmtree(folder)
        yield chosen, losses
