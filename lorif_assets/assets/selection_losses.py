"""Selection losses: how well the model knows the queries when it is trained on their proponents alone."""

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.ranked_data_losses import ranked_data_losses
from lorif_assets.evaluation.retraining.ranked_data import SELECTION
from lorif_assets.freshness.evaluation import stale_selection_losses
from lorif_assets.lake.evaluation_tables import SELECTION_LOSSES


@attribution_asset(
    group="evaluation",
    table=SELECTION_LOSSES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[method_scores],
    find_stale=stale_selection_losses,
    on_demand=True,
    on_device=True,
    one_at_a_time=True,
    kinds={"torch", "deltalake"},
)
def selection_losses(run: PartitionRun) -> Materializations:
    """Each query's loss after training on the first proponents of its set alone, by several methods and numbers.

    Each model's losses are committed as soon as it is trained: a killed run goes on with the first that is missing.
    """
    yield from ranked_data_losses(run, SELECTION)
