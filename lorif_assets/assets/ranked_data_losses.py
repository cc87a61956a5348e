"""What assets that retrain on data chosen by rankings do alike: train what is missing, model by model."""

from collections.abc import Callable, Mapping
from typing import Any

from lorif_assets.assets.attribution_asset import Materializations
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.config.content_hash import content_hash
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores, method_versions, read_evaluated_scores
from lorif_assets.evaluation.retraining.ranked_data import (
    Experiment,
    ranked_data_versions,
    retrain_on_ranked_data,
    stored_ranked_data_versions,
)
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES

Measure = Callable[[str, EvaluatedScores, Mapping[str, str]], Mapping[str, Any]]
"""Stores what the losses of a partition say, and returns figures: given its key, the scores, and the models' versions."""


def ranked_data_losses(run: PartitionRun, experiment: Experiment, measure: Measure | None = None) -> Materializations:
    """Train the models of an experiment whose losses are missing or out of date, and commit query set by query set.

    Each model's losses are stored as soon as it is trained: a killed run goes on with the first that is missing.
    """
    planned = experiment.plan(run.settings.evaluation, run.lake.read(TRAINING_EXAMPLES, ["example_id"]).height)
    for name, query_sets in run.by_checkpoint().items():
        record = run.stored(name).record
        for query_set, key in query_sets.items():
            methods = method_versions(run.project, record, query_set)
            scored = read_evaluated_scores(run.lake, name, query_set, methods)
            wanted = ranked_data_versions(run.settings, run.lake, query_set, planned, methods)
            stored = stored_ranked_data_versions(run.lake, experiment, name, query_set)
            missing = {one: wanted[one.name] for one in planned if stored.get(one.name) != wanted[one.name]}
            figures: dict[str, Any] = {"models_left_as_they_are": len(planned) - len(missing)}
            with run.lease() as group:
                for one, losses in retrain_on_ranked_data(
                    run.project, experiment, name, query_set, scored, missing, group
                ):
                    mean = float(losses["loss"].sum()) / float(losses["n_target_tokens"].sum())
                    run.log.info(f"{key}: {one.name} retrained, loss per token {mean:.3f}")
                    figures[f"loss_per_token_{one.name}"] = mean
            if measure:
                figures |= measure(key, scored, wanted)
            yield from run.commit(key, content_hash(wanted), figures)
