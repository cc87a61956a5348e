"""Subset losses: what models retrained on random subsets of the training data say of the queries."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.corpus import query_examples, training_examples
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.config.settings import Settings
from lorif_assets.evaluation.query_sets import evaluated_query_sets
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.lake.evaluation_tables import SUBSET_LOSSES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import Devices


@dg.asset(
    group_name="evaluation",
    partitions_def=partitions.subsets,
    deps=[
        dg.AssetDep(training_examples, partition_mapping=dg.AllPartitionMapping()),
        dg.AssetDep(query_examples, partition_mapping=dg.AllPartitionMapping()),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    metadata=table_metadata(SUBSET_LOSSES),
)
def subset_losses(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    devices: dg.ResourceParam[Devices],
) -> Iterator[dg.MaterializeResult[Any]]:
    """The loss of every query under models that were retrained on one random subset of the training data, seed by seed.

    Each model's losses are committed as soon as it is trained: a killed run goes on with the first that is missing.
    """
    commits = PartitionCommits(context)
    truth_source, query_sets = subset_truth(settings, lake), evaluated_query_sets(settings, lake)
    with devices.lease() as group:
        for subset in context.partition_keys:
            figures: dict[str, Any] = {"examples": len(truth_source.members(subset)), "seeds": len(truth_source.seeds)}
            unfinished = truth_source.unfinished_seeds(subset, query_sets)
            for seed in unfinished:
                losses = truth_source.compute(subset, seed, query_sets, model_checkpoints, group)
                figures[f"mean_loss_seed_{seed}"] = float(losses["loss"].to_numpy().mean())
                if (seconds := losses["seconds"][0]) is not None:
                    context.log.info(f"{subset} seed {seed}: retrained in {seconds:.0f} s")
                    figures["seconds_per_model"] = seconds
            figures["models_left_as_they_are"] = len(truth_source.seeds) - len(unfinished)
            yield from commits.commit(subset, truth_source.version(subset, query_sets), figures)
