"""Evaluation figures as MLflow metrics, so that checkpoints and recipes compare there."""

from collections.abc import Iterable

import dagster as dg

from lorif_assets.evaluation.figures import QUERY, Figure
from lorif_assets.tracking import Tracking


def track_figures(
    tracking: Tracking, context: dg.AssetExecutionContext, partition: str, figures: Iterable[Figure]
) -> None:
    """Log what an asset measured, but for single queries, as metrics `<metric>.<method>` of a run of its checkpoint."""
    checkpoint, _, query_set = partition.partition("|")
    name = context.asset_key.to_user_string()
    tags = {"dagster.run_id": context.run_id, "dagster.partition": partition, "lorif.query_set": query_set}
    with tracking.materialization(checkpoint, name, tags, {}) as run:
        if run:
            run.metrics(
                {
                    ".".join(part for part in (figure.metric, figure.statistic, figure.method) if part): figure.value
                    for figure in figures
                    if figure.statistic != QUERY
                }
            )
