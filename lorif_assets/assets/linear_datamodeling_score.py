"""The linear datamodeling score: whether each method's scores predict what retraining on random subsets does."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.assets.evaluation_tracking import track_figures
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.subset_losses import subset_losses
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.model import checkpoint_record
from lorif_assets.config.settings import Settings
from lorif_assets.evaluation.figures import MEAN, Figure, comparison_figures, reference_method, store_figures
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.tracking import Tracking

_EVALUATION, _METRIC = "linear_datamodeling_score", "lds"


@dg.asset(
    group_name="evaluation",
    partitions_def=partitions.checkpoint_by_query_set,
    deps=[method_scores, dg.AssetDep(subset_losses, partition_mapping=dg.AllPartitionMapping())],
    code_version="1",
    owners=OWNERS,
    kinds={"deltalake"},
    metadata=table_metadata(EVALUATION_FIGURES),
)
def linear_datamodeling_score(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    tracking: dg.ResourceParam[Tracking],
) -> Iterator[dg.MaterializeResult[Any]]:
    """Mean Spearman correlation over queries with intervals, of every method, and LoRIF's paired differences to it."""
    from lorif_assets.attribution.versions import datamodeling_version
    from lorif_assets.evaluation.methods.evaluated_scores import method_versions, read_evaluated_scores
    from lorif_assets.evaluation.retraining.external_truth import subset_truth
    from lorif_assets.evaluation.retraining.ground_truth import read_ground_truth
    from lorif_assets.mathematics.evaluation.datamodeling import linear_datamodeling_scores

    commits, truth_source = PartitionCommits(context), subset_truth(settings, lake)
    for name, query_sets in partitions.by_checkpoint(context.partition_keys, partitions.QUERY_SET).items():
        record = checkpoint_record(lake, name, settings.recipe)
        for query_set, key in query_sets.items():
            scored = read_evaluated_scores(
                lake, name, query_set, method_versions(settings, lake, model_checkpoints, record, query_set)
            )
            truth = read_ground_truth(
                lake, query_set, truth_source.wanted(query_set), scored.query_ids, scored.example_ids
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
            if truth.reliability:
                figures += [
                    Figure("reliability_of_one_seed", MEAN, None, truth.reliability.one_seed),
                    Figure("reliability", MEAN, None, truth.reliability.all_seeds),
                    Figure("lds_within_reach", MEAN, None, truth.reliability.ceiling),
                ]
            version = datamodeling_version(settings.evaluation, scored.version, truth.version)
            store_figures(lake, name, query_set, _EVALUATION, figures, version)
            track_figures(tracking, context, key, figures)
            yield from commits.commit(
                key,
                version,
                {
                    "subsets": len(truth.subsets),
                    "models": truth.n_models,
                    "queries": len(scored.query_ids),
                    **{f"lds_{method}": estimate.value for method, estimate in result.mean.items()},
                },
            )
