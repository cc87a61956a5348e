"""Removal losses: what the queries lose when the model is retrained without their proponents."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.model import checkpoint_record
from lorif_assets.config.recipe import content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import TRAINING_EXAMPLES
from lorif_assets.lake.evaluation_tables import REMOVAL_LOSSES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import Devices


@dg.asset(
    group_name="evaluation",
    partitions_def=partitions.checkpoint_by_query_set,
    deps=[method_scores],
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    metadata=table_metadata(REMOVAL_LOSSES),
)
def removal_losses(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    devices: dg.ResourceParam[Devices],
) -> Iterator[dg.MaterializeResult[Any]]:
    """Each query's loss after retraining without the first proponents of its set, by several methods and numbers.

    Each model's losses are committed as soon as it is trained: a killed run goes on with the first that is missing.
    """
    from lorif_assets.evaluation.methods.evaluated_scores import method_versions, read_evaluated_scores
    from lorif_assets.evaluation.retraining.removal import (
        planned_removals,
        removal_versions,
        retrain_without,
        stored_removal_versions,
    )

    commits = PartitionCommits(context)
    for name, query_sets in partitions.by_checkpoint(context.partition_keys, partitions.QUERY_SET).items():
        record = checkpoint_record(lake, name, settings.recipe)
        for query_set, key in query_sets.items():
            methods = method_versions(settings, lake, model_checkpoints, record, query_set)
            scored = read_evaluated_scores(lake, name, query_set, methods)
            removals = planned_removals(settings, lake.read(TRAINING_EXAMPLES, ["example_id"]).height)
            wanted = removal_versions(settings, lake, query_set, removals, methods)
            stored = stored_removal_versions(lake, name, query_set)
            missing = {r: wanted[r.name] for r in removals if stored.get(r.name) != wanted[r.name]}
            figures: dict[str, Any] = {"models_left_as_they_are": len(removals) - len(missing)}
            with devices.lease() as group:
                for removal, losses in retrain_without(
                    settings, lake, name, query_set, scored, missing, model_checkpoints, group
                ):
                    mean = float(losses["loss"].sum()) / float(losses["n_target_tokens"].sum())
                    context.log.info(f"{key}: {removal.name} retrained, loss per token {mean:.3f}")
                    figures[f"loss_per_token_{removal.name}"] = mean
            yield from commits.commit(key, content_hash(wanted), figures)
