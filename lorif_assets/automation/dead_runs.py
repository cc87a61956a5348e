"""Runs whose process died without a word: Dagster's local launcher leaves them STARTED forever after a SIGKILL."""

import os
import socket
import time
from pathlib import Path
from typing import Final

import dagster as dg
import psutil
from dagster import DagsterRunStatus, RunsFilter

from lorif_assets.config.sections import AutomationSettings

PROCESS_TAG: Final = "lorif/process"
"""Machine, process id and start time of the process, for runs whose steps are executed in the run's own process."""
KILLED_TAG: Final = "lorif/killed"
"""Of runs that were found dead: `UNTOLD`, or `TOLD` once MLflow knows."""
UNTOLD: Final = "MLflow is not told"
TOLD: Final = "MLflow is told"

_UNFINISHED = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED)


def process_tag() -> str:
    """Return the value of `PROCESS_TAG` of this process.

    The start time is part of it: a container that restarts keeps its name and gives out the same process ids again.
    """
    return f"{this_machine()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def this_machine() -> str:
    """Return the machine's name and, on Linux, whose process ids are seen here: containers may share the name."""
    try:
        return f"{socket.gethostname()}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return socket.gethostname()


def fail_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark unfinished runs whose process on this machine is gone as failed, and free what they held or waited for.

    Dagster hands out a pool's slots in the order of requests: what a killed run still waits for would block all later runs.

    Returns:
        The ids of the runs.
    """
    dead = dead_runs(instance)
    for run in dead:
        machine, pid, *_ = run.tags[PROCESS_TAG].split(":")
        _fail(instance, run, f"its process {pid} on {machine.partition('/')[0]} is gone: it was probably killed")
    return [run.run_id for run in dead]


def dead_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Return unfinished runs whose process on this machine is gone, those among them that it made and never started."""
    dead = []
    for run in instance.get_runs(RunsFilter(statuses=_UNFINISHED)):
        machine, _, process = run.tags.get(PROCESS_TAG, "").partition(":")
        pid, _, start = process.partition(":")
        if (
            machine == this_machine()
            and _is_gone(int(pid), float(start) if start else None)
            and not _is_inherited(instance, run)
        ):
            dead.append(run)
    return dead


def fail_stalled_runs(instance: dg.DagsterInstance, automation: AutomationSettings, tag: str) -> list[str]:
    """Mark started runs that carry a tag and have shown no sign of life for too long as failed, and free what they held.

    Long work logs its progress, so that a run that is alive has recent events. Marking a run by mistake does no harm: what
    it still commits is what its successor would commit.

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
        # After a clock was set back, what a dead run left lies ahead; one that is alive soon shows a sign of now.
        if abs(time.time() - seen) > automation.stalled_after_seconds:
            silence = f"no sign of life for {automation.stalled_after_seconds} s"
            _fail(instance, run, f"{silence}: its process was probably killed")
            stalled.append(run.run_id)
    return stalled


def _fail(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> None:
    # Last that it failed: a kill before leaves a run that is found again.
    instance.add_run_tags(run.run_id, {KILLED_TAG: UNTOLD})
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    instance.report_run_failed(run, reason)


def _is_inherited(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Return whether a run tries another one again and has not told its own process yet: Dagster copies the tags."""
    if run.parent_run_id is None:
        return False
    parent = instance.get_run_by_id(run.parent_run_id)
    return parent is None or parent.tags.get(PROCESS_TAG) == run.tags[PROCESS_TAG]


def _is_gone(pid: int, start: float | None) -> bool:
    try:
        # Where the clock is set, the start of every process moves with it: by little, as long as time is kept.
        found = psutil.Process(pid).create_time()
        return start is not None and abs(found - start) > 2
    except psutil.NoSuchProcess:
        return True
