"""Source retrieval: whether a method finds the examples that are known to have taught a completion."""

import numpy as np

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.measured_figures import evaluated_scores, keep_figures
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.attribution.stored.versions import source_retrieval_version
from lorif_assets.errors import SourceError
from lorif_assets.evaluation.figures import Figure, comparison_figures, reference_method
from lorif_assets.evaluation.known_sources import known_sources
from lorif_assets.freshness.evaluation import stale_source_retrievals
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES

_METRICS = {
    "recall_at_10": "recall_at_10",
    "mrr": "reciprocal_rank",
    "roc_auc": "roc_auc",
    "auprc": "average_precision",
}


@attribution_asset(
    group="evaluation",
    table=EVALUATION_FIGURES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[method_scores],
    find_stale=stale_source_retrievals,
    on_demand=True,
    one_at_a_time=True,
    kinds={"deltalake"},
)
def source_retrieval(run: PartitionRun) -> Materializations:
    """Recall at 10, mean reciprocal rank, AUROC and AUPRC of the known sources, by every method."""
    from lorif_assets.mathematics.evaluation import retrieval
    from lorif_assets.mathematics.evaluation.intervals import compared_over_queries

    evaluation = run.settings.evaluation
    for name, query_sets in run.by_checkpoint().items():
        for query_set, key in query_sets.items():
            scored = evaluated_scores(run, name, query_set)
            sources = known_sources(run.lake, evaluation, query_set, scored.query_ids, scored.example_ids)
            if not sources:
                raise SourceError(
                    f"no query of {query_set!r} has known sources among the examples: expected ids in the metadata field "
                    f"{evaluation.source_field!r} (`evaluation.source_field`), or topics in "
                    f"{evaluation.topic_fields[0]!r} that examples have in {evaluation.topic_fields[1]!r}"
                )
            found = {
                method: [
                    retrieval.source_retrieval(scores[scored.query_ids.index(query_id)], mask)
                    for query_id, mask in sources.items()
                ]
                for method, scores in scored.by_method.items()
            }
            figures: list[Figure] = []
            metadata: dict[str, float] = {"queries": len(sources)}
            for metric, attribute in _METRICS.items():
                values = {
                    method: np.array([getattr(one, attribute) for one in retrieved])
                    for method, retrieved in found.items()
                }
                result = compared_over_queries(values, reference_method(values), evaluation.bootstrap)
                figures += comparison_figures(metric, result, list(sources))
                metadata |= {f"{metric}_{method}": estimate.value for method, estimate in result.mean.items()}
            version = source_retrieval_version(evaluation, scored.version)
            keep_figures(run, key, "source_retrieval", figures, version)
            yield from run.commit(key, version, metadata)
