"""Tail-patch: whether a step on what a method retrieves makes the model say the completion more."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float64

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Materializations, attribution_asset
from lorif_assets.assets.measured_figures import evaluated_scores, keep_figures
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.attribution.stored.versions import tail_patch_version
from lorif_assets.evaluation.figures import comparison_figures, reference_method
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores
from lorif_assets.evaluation.methods.inputs import MethodInputs
from lorif_assets.freshness.evaluation import stale_tail_patches
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES


@attribution_asset(
    group="evaluation",
    table=EVALUATION_FIGURES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[method_scores],
    find_stale=stale_tail_patches,
    on_demand=True,
    on_device=True,
    one_at_a_time=True,
    kinds={"torch", "deltalake"},
)
def tail_patch(run: PartitionRun) -> Materializations:
    """The change of each completion's log-probability after one step on each of its proponents, by every method."""
    from lorif_assets.mathematics.evaluation.intervals import compared_over_queries

    evaluation = run.settings.evaluation
    for name, query_sets in run.by_checkpoint().items():
        for query_set, key in query_sets.items():
            scored = evaluated_scores(run, name, query_set)
            changes, query_ids = _changes(run, name, query_set, scored)
            result = compared_over_queries(changes, reference_method(changes), evaluation.bootstrap)
            version = tail_patch_version(evaluation, scored.version)
            keep_figures(run, key, "tail_patch", comparison_figures("tail_patch", result, query_ids), version)
            figures = {f"tail_patch_{method}": found.value for method, found in result.mean.items()}
            yield from run.commit(key, version, figures)


def _changes(
    run: PartitionRun, checkpoint: str, query_set: str, scored: EvaluatedScores
) -> tuple[Mapping[str, Float64[np.ndarray, " Q"]], list[str]]:
    """Return each method's changes of log-probability, and the ids of the queries that they are of."""
    from lorif_assets.evaluation.tail_patching import tail_patch_changes

    with run.lease() as group:
        attributed = run.stored(checkpoint).load(run.checkpoints, group).model
        inputs = MethodInputs.load(run.project, attributed, [query_set])
        query_ids = inputs.queries.ids
        rows = [scored.query_ids.index(query_id) for query_id in query_ids]
        first = {
            method: np.argsort(-scores[rows], axis=1, kind="stable")[:, : run.settings.evaluation.tail_patch_k]
            for method, scores in scored.by_method.items()
        }
        retrieved = {
            method: [[scored.example_ids[at] for at in row] for row in places] for method, places in first.items()
        }
        changes = tail_patch_changes(inputs, retrieved)
        # Before another run gets the devices: the memory is not free while a name refers to the model.
        del attributed, inputs
    return changes, query_ids
