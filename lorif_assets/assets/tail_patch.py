"""Tail-patch: whether a step on what a method retrieves makes the model say the completion more."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import numpy as np

from lorif_assets.assets import partitions
from lorif_assets.assets.evaluation_tracking import track_figures
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.checkpoint import StoredCheckpoint
from lorif_assets.attribution.versions import tail_patch_version
from lorif_assets.config.settings import Settings
from lorif_assets.evaluation.figures import comparison_figures, reference_method, store_figures
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import Devices
from lorif_assets.tracking import Tracking


@dg.asset(
    group_name="evaluation",
    partitions_def=partitions.checkpoint_by_query_set,
    deps=[method_scores],
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    metadata=table_metadata(EVALUATION_FIGURES),
)
def tail_patch(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    devices: dg.ResourceParam[Devices],
    tracking: dg.ResourceParam[Tracking],
) -> Iterator[dg.MaterializeResult[Any]]:
    """The change of each completion's log-probability after one step on each of its proponents, by every method."""
    from lorif_assets.evaluation.methods.evaluated_scores import method_versions, read_evaluated_scores
    from lorif_assets.evaluation.methods.inputs import MethodInputs
    from lorif_assets.evaluation.tail_patching import tail_patch_changes
    from lorif_assets.mathematics.evaluation.intervals import compared_over_queries

    commits, evaluation = PartitionCommits(context), settings.evaluation
    for name, query_sets in partitions.by_checkpoint(context.partition_keys, partitions.QUERY_SET).items():
        stored = StoredCheckpoint.read(lake, name, settings.recipe)
        for query_set, key in query_sets.items():
            scored = read_evaluated_scores(
                lake, name, query_set, method_versions(settings, lake, model_checkpoints, stored.record, query_set)
            )
            with devices.lease() as group:
                attributed = stored.load(model_checkpoints, group).model
                inputs = MethodInputs.load(settings, lake, model_checkpoints, attributed, [query_set])
                rows = [scored.query_ids.index(query_id) for query_id in inputs.queries.ids]
                first = {
                    method: np.argsort(-scores[rows], axis=1, kind="stable")[:, : evaluation.tail_patch_k]
                    for method, scores in scored.by_method.items()
                }
                retrieved = {
                    method: [[scored.example_ids[at] for at in row] for row in places]
                    for method, places in first.items()
                }
                changes, query_ids = tail_patch_changes(inputs, retrieved), inputs.queries.ids
                # Before the devices are another's: the memory is not free while a name holds the model.
                del attributed, inputs
            result = compared_over_queries(changes, reference_method(changes), evaluation.bootstrap)
            figures = comparison_figures("tail_patch", result, query_ids)
            version = tail_patch_version(evaluation, scored.version)
            store_figures(lake, name, query_set, "tail_patch", figures, version)
            track_figures(tracking, context, key, figures)
            yield from commits.commit(
                key, version, {f"tail_patch_{method}": found.value for method, found in result.mean.items()}
            )
