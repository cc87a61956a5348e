"""The linear datamodeling score: whether each method's scores predict what retraining on random subsets does."""

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.measured_figures import evaluated_scores, keep_figures
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.subset_losses import subset_losses
from lorif_assets.attribution.stored.versions import datamodeling_version
from lorif_assets.evaluation.ekfac_agreement import agreement_figures
from lorif_assets.evaluation.figures import MEAN, Figure, comparison_figures, reference_method
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.evaluation.retraining.ground_truth import read_ground_truth
from lorif_assets.freshness.evaluation import stale_datamodeling_scores
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES

_EVALUATION, _METRIC = "linear_datamodeling_score", "lds"


@attribution_asset(
    group="evaluation",
    table=EVALUATION_FIGURES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[method_scores, Input(subset_losses, partitions.every())],
    find_stale=stale_datamodeling_scores,
    on_demand=True,
    one_at_a_time=True,
    kinds={"deltalake"},
)
def linear_datamodeling_score(run: PartitionRun) -> Materializations:
    """Mean Spearman correlation over queries with intervals, of every method, and LoRIF's paired differences to it.

    Where exact EK-FAC is among the methods, also how well each one's first places agree with it.
    """
    from lorif_assets.mathematics.evaluation.datamodeling import linear_datamodeling_scores

    settings, lake = run.settings, run.lake
    truth_source = subset_truth(settings, lake)
    for name, query_sets in run.by_checkpoint().items():
        for query_set, key in query_sets.items():
            scored = evaluated_scores(run, name, query_set)
            truth = read_ground_truth(
                lake, query_set, truth_source.expected_versions(query_set), scored.query_ids, scored.example_ids
            )
            result = linear_datamodeling_scores(
                scored.by_method,
                truth.members,
                truth.losses,
                reference_method(scored.by_method),
                settings.evaluation.bootstrap,
            )
            figures = comparison_figures(_METRIC, result, scored.query_ids)
            figures += [
                Figure("subsets", MEAN, None, len(truth.subsets)),
                Figure("models", MEAN, None, truth.n_models),
            ]
            figures += agreement_figures(scored, settings.evaluation.bootstrap)
            if truth.reliability:
                figures += [
                    Figure("reliability_of_one_seed", MEAN, None, truth.reliability.one_seed),
                    Figure("reliability", MEAN, None, truth.reliability.all_seeds),
                    Figure("lds_within_reach", MEAN, None, truth.reliability.ceiling),
                ]
            version = datamodeling_version(settings.evaluation, scored.version, truth.version)
            keep_figures(run, key, _EVALUATION, figures, version)
            yield from run.commit(
                key,
                version,
                {
                    "subsets": len(truth.subsets),
                    "models": truth.n_models,
                    "queries": len(scored.query_ids),
                    **{f"lds_{method}": estimate.value for method, estimate in result.mean.items()},
                },
            )
