"""Dagster runs that are executed in this process, under the names by which its UI lists runs."""

import signal
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import dagster as dg
from dagster import DagsterEventType
from dagster._core.events import RunFailureReason
from dagster._core.storage.compute_log_manager import CapturedLogContext, ComputeLogManager
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.automation.dead_runs import PROCESS_TAG, process_tag
from lorif_assets.project import Project
from resources import dagster_resources

# By it, Dagster's UI finds a job's runs: the repository of `dg.Definitions`, in the location that its module names.
_CODE_LOCATION = {REPOSITORY_LABEL_TAG: "__repository__@lorif_assets.definitions"}


def execute_run(
    instance: dg.DagsterInstance,
    assets: Sequence[AttributionAsset],
    project: Project,
    job: str,
    selection: dg.AssetSelection,
    tags: Mapping[str, str],
    *,
    checks: Collection[dg.AssetChecksDefinition] = (),
    partition: str | None = None,
) -> dg.ExecuteInProcessResult:
    """Execute a part of the graph as one run. What fails in it is in the result, and its traceback with Dagster.

    Args:
        instance: Dagster's instance; its UI shows the run.
        assets: the graph.
        project: what is worked on.
        job: the run's name in Dagster's lists.
        selection: the part.
        tags: of the run.
        checks: asset checks that it may hold.
        partition: the only one, if there is one.

    Raises:
        KeyboardInterrupt: somebody interrupted it; Dagster has it as a failure.
    """
    definitions = dg.Definitions(
        assets=[asset.definition for asset in assets],
        asset_checks=list(checks),
        jobs=[dg.define_asset_job(job, selection=selection)],
        resources=dagster_resources(project),
    )
    with _interrupts_kept_from_log_processes(instance.compute_log_manager):
        result = definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            partition_key=partition,
            tags={PROCESS_TAG: process_tag(), **_CODE_LOCATION, **tags},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    if any(_is_interruption(event) for event in result.all_events):
        raise KeyboardInterrupt
    return result


def _is_interruption(event: dg.DagsterEvent) -> bool:
    return (
        event.event_type is DagsterEventType.RUN_FAILURE
        and event.job_failure_data.failure_reason is RunFailureReason.UNEXPECTED_TERMINATION
    )


@contextmanager
def _interrupts_kept_from_log_processes(manager: ComputeLogManager) -> Iterator[None]:
    """Have Ctrl-C reach this process alone, and not the processes that show what a step prints while it is kept.

    A terminal sends it to all of them, and Dagster's would print a traceback each; they end with the step.
    """
    capture_logs = manager.capture_logs

    @contextmanager
    def captured_logs(log_key: Sequence[str]) -> Iterator[CapturedLogContext]:
        with ExitStack() as captured:
            # Processes start with the mask of the thread that starts them; what is held back of this one comes right after.
            held_back = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                context = captured.enter_context(capture_logs(log_key))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, held_back)
            yield context

    manager.capture_logs = captured_logs  # type: ignore[method-assign]
    try:
        yield
    finally:
        manager.capture_logs = capture_logs  # type: ignore[method-assign]
