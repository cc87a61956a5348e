"""Removal losses: what the queries lose when the model is retrained without their proponents."""

from collections.abc import Mapping

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.measured_figures import keep_figures
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.ranked_data_losses import ranked_data_losses
from lorif_assets.attribution.stored.versions import removal_figures_version
from lorif_assets.evaluation.figures import MEAN
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores
from lorif_assets.evaluation.removal_figures import removal_figures
from lorif_assets.evaluation.retraining.ranked_data import REMOVAL
from lorif_assets.freshness.evaluation import stale_removal_losses
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
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
    """Each query's loss after retraining without proponents of its set, by several methods and numbers.

    Each model's losses are committed as soon as it is trained: a killed run goes on with the first that is missing.
    """

    def measure(key: str, scored: EvaluatedScores, versions: Mapping[str, str]) -> Mapping[str, float]:
        name, _, query_set = key.partition("|")
        n_examples = run.lake.read(TRAINING_EXAMPLES, ["example_id"]).height
        found = removal_figures(run.settings, run.lake, name, query_set, scored, n_examples)
        keep_figures(run, key, "removal_losses", found, removal_figures_version(run.settings.evaluation, versions))
        return {f"{one.metric}_{one.method}": one.value for one in found if one.method and one.statistic == MEAN}

    yield from ranked_data_losses(run, REMOVAL, measure)
