"""Removal losses: what the queries lose when the model is retrained without their proponents."""

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.ranked_data_losses import ranked_data_losses
from lorif_assets.evaluation.retraining.ranked_data import REMOVAL
from lorif_assets.freshness.evaluation import stale_removal_losses
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
    yield from ranked_data_losses(run, REMOVAL)
