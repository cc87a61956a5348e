"""Source retrieval: whether a method finds the examples that are known to have taught a completion."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import numpy as np

from lorif_assets.assets import partitions
from lorif_assets.assets.evaluation_tracking import track_figures
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.model import checkpoint_record
from lorif_assets.attribution.versions import source_retrieval_version
from lorif_assets.config.settings import Settings
from lorif_assets.errors import SourceError
from lorif_assets.evaluation.figures import Figure, comparison_figures, reference_method, store_figures
from lorif_assets.evaluation.known_sources import known_sources
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.tracking import Tracking

_METRICS = {"recall_at_10": "recall_at_10", "mrr": "reciprocal_rank", "roc_auc": "roc_auc"}


@dg.asset(
    group_name="evaluation",
    partitions_def=partitions.checkpoint_by_query_set,
    deps=[method_scores],
    code_version="1",
    owners=OWNERS,
    kinds={"deltalake"},
    metadata=table_metadata(EVALUATION_FIGURES),
)
def source_retrieval(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    tracking: dg.ResourceParam[Tracking],
) -> Iterator[dg.MaterializeResult[Any]]:
    """Recall at 10, mean reciprocal rank and area under the ROC curve of the known sources, by every method."""
    from lorif_assets.evaluation.methods.evaluated_scores import method_versions, read_evaluated_scores
    from lorif_assets.mathematics.evaluation import retrieval
    from lorif_assets.mathematics.evaluation.intervals import compared_over_queries

    commits, evaluation = PartitionCommits(context), settings.evaluation
    for name, query_sets in partitions.by_checkpoint(context.partition_keys, partitions.QUERY_SET).items():
        record = checkpoint_record(lake, name, settings.recipe)
        for query_set, key in query_sets.items():
            scored = read_evaluated_scores(
                lake, name, query_set, method_versions(settings, lake, model_checkpoints, record, query_set)
            )
            sources = known_sources(lake, evaluation, query_set, scored.query_ids, scored.example_ids)
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
            store_figures(lake, name, query_set, "source_retrieval", figures, version)
            track_figures(tracking, context, key, figures)
            yield from commits.commit(key, version, metadata)
