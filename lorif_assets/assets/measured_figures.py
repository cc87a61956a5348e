"""What assets that measure methods have in common: the scores that they measure, and where their figures go."""

from collections.abc import Sequence

from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.evaluation.figures import QUERY, Figure, store_figures
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores, method_versions, read_evaluated_scores


def evaluated_scores(run: PartitionRun, checkpoint: str, query_set: str) -> EvaluatedScores:
    """Return the stored scores of every method of the settings.

    Raises:
        MismatchError: a method's scores are missing or out of date.
    """
    versions = method_versions(run.project, run.stored(checkpoint).record, query_set)
    return read_evaluated_scores(run.lake, checkpoint, query_set, versions)


def keep_figures(run: PartitionRun, partition: str, evaluation: str, figures: Sequence[Figure], version: str) -> None:
    """Store all figures, and track those that are not of a single query, to compare checkpoints and recipes in MLflow.

    A tracked metric is named `<metric>.<statistic>.<method>`.
    """
    checkpoint, _, query_set = partition.partition("|")
    store_figures(run.lake, checkpoint, query_set, evaluation, figures, version)
    with run.tracked(checkpoint, [partition], query_set=query_set) as tracked:
        if tracked:
            tracked.metrics(
                {
                    ".".join(part for part in (figure.metric, figure.statistic, figure.method) if part): figure.value
                    for figure in figures
                    if figure.statistic != QUERY
                }
            )
