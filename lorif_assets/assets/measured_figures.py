"""What assets that measure methods have in common: the scores that they measure, and where their figures go."""

from collections.abc import Sequence

from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.config.methods import MethodName
from lorif_assets.evaluation.figures import MEAN, QUERY, Figure, store_figures
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores, method_versions, read_evaluated_scores
from lorif_assets.tracking.metric_names import metric_name


def evaluated_scores(run: PartitionRun, checkpoint: str, query_set: str) -> EvaluatedScores:
    """Return the stored scores of every method of the settings.

    Raises:
        MismatchError: a method's scores are missing or out of date.
    """
    versions = method_versions(run.project, run.stored(checkpoint).record, query_set)
    return read_evaluated_scores(run.lake, checkpoint, query_set, versions)


def keep_figures(run: PartitionRun, partition: str, evaluation: str, figures: Sequence[Figure], version: str) -> None:
    """Store all figures, and track those that are not of a single query, to compare checkpoints and recipes in MLflow.

    A tracked metric is named `<metric>.<statistic>.<method>`. The checkpoint's own run has LoRIF's means alone, by query set.
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
            tracked.checkpoint_metrics(
                {
                    metric_name(figure.metric, query_set): figure.value
                    for figure in figures
                    if figure.statistic == MEAN and figure.method == MethodName.LORIF
                }
            )
