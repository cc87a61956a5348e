"""Removal losses: what the queries lose when the model is retrained without their proponents."""

from typing import Any

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.config.content_hash import content_hash
from lorif_assets.evaluation.methods.evaluated_scores import method_versions, read_evaluated_scores
from lorif_assets.evaluation.retraining.removal import (
    planned_removals,
    removal_versions,
    retrain_without,
    stored_removal_versions,
)
from lorif_assets.freshness.evaluation import stale_removal_losses
from lorif_assets.lake.attribution_tables import TRAINING_EXAMPLES
from lorif_assets.lake.evaluation_tables import REMOVAL_LOSSES


@attribution_asset(
    group="evaluation",
    table=REMOVAL_LOSSES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[method_scores],
    find_stale=stale_removal_losses,
    on_demand=True,
    on_device=True,
    one_at_a_time=True,
    kinds={"torch", "deltalake"},
)
def removal_losses(run: PartitionRun) -> Materializations:
    """Each query's loss after retraining without the first proponents of its set, by several methods and numbers.

    Each model's losses are committed as soon as it is trained: a killed run goes on with the first that is missing.
    """
    settings, lake = run.settings, run.lake
    for name, query_sets in run.by_checkpoint().items():
        record = run.stored(name).record
        for query_set, key in query_sets.items():
            methods = method_versions(run.project, record, query_set)
            scored = read_evaluated_scores(lake, name, query_set, methods)
            removals = planned_removals(settings, lake.read(TRAINING_EXAMPLES, ["example_id"]).height)
            wanted = removal_versions(settings, lake, query_set, removals, methods)
            stored = stored_removal_versions(lake, name, query_set)
            missing = {r: wanted[r.name] for r in removals if stored.get(r.name) != wanted[r.name]}
            figures: dict[str, Any] = {"models_left_as_they_are": len(removals) - len(missing)}
            with run.lease() as group:
                for removal, losses in retrain_without(run.project, name, query_set, scored, missing, group):
                    mean = float(losses["loss"].sum()) / float(losses["n_target_tokens"].sum())
                    run.log.info(f"{key}: {removal.name} retrained, loss per token {mean:.3f}")
                    figures[f"loss_per_token_{removal.name}"] = mean
            yield from run.commit(key, content_hash(wanted), figures)
