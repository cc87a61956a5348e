"""What MLflow has not been told: runs that were killed, which it would show as running for ever, and what was kept for it."""

from functools import partial

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from lorif_assets.automation.dead_runs import KILLED_TAG, TOLD, UNTOLD
from lorif_assets.tracking import StoredRun, Tracking


def tell_what_is_untold(instance: dg.DagsterInstance, tracking: Tracking) -> None:
    """Tell MLflow of runs that were found dead, and what is kept; where it cannot be reached, the next update does.

    Args:
        instance: Dagster's instance, whose tags of a run say whether MLflow knows of its end.
        tracking: MLflow, which is not asked where there is nothing to tell.
    """
    if tracking.uri is None:
        return
    # A run that tries a killed one again has its tags.
    over = dg.RunsFilter(tags={KILLED_TAG: UNTOLD}, statuses=FINISHED_STATUSES)
    killed = {run.run_id for run in instance.get_runs(over)}
    if (killed or tracking.waiting) and tracking.settle(killed, partial(is_recorded, instance)):
        for run_id in killed:
            instance.add_run_tags(run_id, {KILLED_TAG: TOLD})


def is_recorded(instance: dg.DagsterInstance, tracked: StoredRun) -> bool:
    """Return whether Dagster has a materialization of what a run of MLflow is of."""
    events = instance.all_logs(tracked.dagster_run, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    return any(event.dagster_event and event.dagster_event.asset_key == dg.AssetKey(tracked.asset) for event in events)
