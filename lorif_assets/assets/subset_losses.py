"""Subset losses: what models retrained on random subsets of the training data say of the queries."""

from typing import Any

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.query_examples import query_examples
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.evaluation.query_sets import evaluated_query_sets
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.freshness.evaluation import stale_subset_losses
from lorif_assets.lake.evaluation_tables import SUBSET_LOSSES


@attribution_asset(
    group="evaluation",
    table=SUBSET_LOSSES,
    partitions=partitions.subsets,
    inputs=[Input(training_examples, partitions.every()), Input(query_examples, partitions.every())],
    find_stale=stale_subset_losses,
    on_demand=True,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def subset_losses(run: PartitionRun) -> Materializations:
    """The loss of every query under models that were retrained on one random subset of the training data, seed by seed.

    Each model's losses are committed as soon as it is trained: a killed run goes on with the first that is missing.
    """
    truth_source = subset_truth(run.settings, run.lake)
    query_sets = evaluated_query_sets(run.settings, run.lake)
    with run.lease() as group:
        for subset in run.partitions:
            figures: dict[str, Any] = {"examples": len(truth_source.members(subset)), "seeds": len(truth_source.seeds)}
            unfinished = truth_source.unfinished_seeds(subset, query_sets)
            for seed in unfinished:
                losses = truth_source.compute(subset, seed, query_sets, run.checkpoints, group)
                figures[f"mean_loss_seed_{seed}"] = float(losses["loss"].to_numpy().mean())
                if (seconds := losses["seconds"][0]) is not None:
                    run.log.info(f"{subset} seed {seed}: retrained in {seconds:.0f} s")
                    figures["seconds_per_model"] = seconds
            figures["models_left_as_they_are"] = len(truth_source.seeds) - len(unfinished)
            yield from run.commit(subset, truth_source.version(subset, query_sets), figures)
