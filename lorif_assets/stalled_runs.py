"""Runs whose process died without a word: Dagster's local launcher leaves them STARTED for ever after a SIGKILL."""

import time

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from lorif_assets.settings import AutomationSettings


def fail_stalled_runs(instance: dg.DagsterInstance, automation: AutomationSettings, tag: str) -> list[str]:
    """Mark started runs that carry a tag and gave no sign of life for too long as failed, and free what they held.

    Long work logs its progress, so that a run that is alive has recent events. A run that is marked by mistake does no
    harm: what it still commits is what its successor would.

    Returns:
        The ids of the runs.
    """
    stalled = []
    for record in instance.get_run_records(RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING])):
        run = record.dagster_run
        if tag not in run.tags:
            continue
        last = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
        seen = last[0].timestamp if last else record.create_timestamp.timestamp()
        if time.time() - seen > automation.stalled_after_seconds:
            instance.report_run_failed(
                run, f"no sign of life for {automation.stalled_after_seconds} s: its process was probably killed"
            )
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            stalled.append(run.run_id)
    return stalled
