"""Runs whose process is gone are failed, and block nobody."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.storage.tags import PARENT_RUN_ID_TAG, ROOT_RUN_ID_TAG
from dagster._core.test_utils import create_run_for_test

from lorif_assets.automation.dead_runs import (
    KILLED_TAG,
    PROCESS_TAG,
    TOLD,
    UNTOLD,
    fail_dead_runs,
    process_tag,
    this_machine,
)
from lorif_assets.automation.jobs import ASSET_JOBS
from lorif_assets.automation.run_executor import in_run_process
from lorif_assets.automation.untold import tell_what_is_untold
from lorif_assets.tracking import Tracking
from tests.conftest import free_port


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    pools = {"concurrency": {"pools": {"default_limit": 1}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=pools) as found:
        found.event_log_storage.set_concurrency_slots("gpu", 1)
        yield found


def started(instance: dg.DagsterInstance, process: str, status: DagsterRunStatus = DagsterRunStatus.STARTED) -> str:
    return create_run_for_test(instance, status=status, tags={PROCESS_TAG: process}).run_id


def ended_process() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{process.pid}:{time.time():.2f}"


def status(instance: dg.DagsterInstance, run_id: str) -> DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run
    return run.status


def test_a_run_whose_process_is_gone_is_failed_and_others_are_left(instance: dg.DagsterInstance) -> None:
    dead = started(instance, f"{this_machine()}:{ended_process()}")
    alive, elsewhere = started(instance, process_tag()), started(instance, f"another-machine:{ended_process()}")
    assert fail_dead_runs(instance) == [dead]
    assert status(instance, dead) is DagsterRunStatus.FAILURE
    assert {status(instance, run) for run in (alive, elsewhere)} == {DagsterRunStatus.STARTED}


def test_a_process_id_that_was_given_out_again_is_another_process(instance: dg.DagsterInstance) -> None:
    dead = started(instance, f"{this_machine()}:{os.getpid()}:{time.time() - 1e6:.2f}")
    assert fail_dead_runs(instance) == [dead]


def test_of_a_run_that_tells_no_start_the_process_id_is_believed(instance: dg.DagsterInstance) -> None:
    started(instance, f"{this_machine()}:{os.getpid()}")
    dead = started(instance, f"{this_machine()}:{ended_process().partition(':')[0]}")
    assert fail_dead_runs(instance) == [dead]


def test_a_container_that_shares_the_machine_s_name_is_another_machine(instance: dg.DagsterInstance) -> None:
    started(instance, f"{this_machine()}0:{ended_process()}")
    assert fail_dead_runs(instance) == []


def test_what_a_dead_run_held_or_waited_for_goes_to_the_next(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    dead = [started(instance, f"{this_machine()}:{ended_process()}") for _ in range(2)]
    for run_id in dead:
        storage.claim_concurrency_slot("gpu", run_id, "step")
    successor = started(instance, process_tag())
    assert not storage.claim_concurrency_slot("gpu", successor, "step").is_claimed
    assert set(fail_dead_runs(instance)) == set(dead)
    assert storage.claim_concurrency_slot("gpu", successor, "step").is_claimed


def test_a_run_that_was_made_and_never_started_is_dead_with_its_process(instance: dg.DagsterInstance) -> None:
    dead = started(instance, f"{this_machine()}:{ended_process()}", DagsterRunStatus.NOT_STARTED)
    started(instance, process_tag(), DagsterRunStatus.NOT_STARTED)
    assert fail_dead_runs(instance) == [dead]
    assert status(instance, dead) is DagsterRunStatus.FAILURE


def test_a_run_that_is_tried_again_from_the_ui_is_alive_with_the_tags_of_the_killed_one(
    instance: dg.DagsterInstance, mlflow_uri: str
) -> None:
    dead = started(instance, f"{this_machine()}:{ended_process()}")
    fail_dead_runs(instance)
    # As Dagster makes it.
    again = create_run_for_test(
        instance,
        status=DagsterRunStatus.STARTING,
        tags={**tags(instance, dead), PARENT_RUN_ID_TAG: dead, ROOT_RUN_ID_TAG: dead},
        parent_run_id=dead,
        root_run_id=dead,
    ).run_id
    assert fail_dead_runs(instance) == []
    assert status(instance, again) is DagsterRunStatus.STARTING
    tracking = Tracking(uri=mlflow_uri, experiment="tried again")
    with tracking.materialization("step-1", "query_scores", {"dagster.run_id": again}, {}):
        tell_what_is_untold(instance, tracking)
        assert [child.is_finished for child in tracking.runs()] == [False]
    assert tags(instance, dead)[KILLED_TAG] == TOLD
    # Once it has told its own process, it may die as any other.
    instance.add_run_tags(again, {PROCESS_TAG: f"{this_machine()}:{ended_process()}"})
    assert fail_dead_runs(instance) == [again]


def test_a_kill_while_a_run_is_failed_leaves_no_place_taken(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    storage = instance.event_log_storage
    dead = started(instance, f"{this_machine()}:{ended_process()}")
    storage.claim_concurrency_slot("gpu", dead, "step")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "free_concurrency_slots_for_run", killed)
        with pytest.raises(KeyboardInterrupt):
            fail_dead_runs(instance)
    assert status(instance, dead) is not DagsterRunStatus.FAILURE
    assert fail_dead_runs(instance) == [dead]
    assert not storage.get_concurrency_info("gpu").active_slot_count


@dg.asset
def told(context: dg.AssetExecutionContext) -> None:
    """What the run tells of its process, seen by a step of it."""
    assert tags(context.instance, context.run_id)[PROCESS_TAG] == process_tag()


def launched_job() -> dg.JobDefinition:
    job = dg.define_asset_job("launched", [told], executor_def=in_run_process)
    return dg.Definitions(assets=[told], jobs=[job]).resolve_job_def("launched")


def test_a_run_that_a_daemon_launches_tells_its_process(instance: dg.DagsterInstance) -> None:
    with dg.execute_job(dg.reconstructable(launched_job), instance) as result:
        assert result.success
    assert all(job.executor_def is in_run_process for job in ASSET_JOBS.values())


def test_mlflow_is_told_of_a_dead_run_as_soon_as_it_can_be(
    instance: dg.DagsterInstance, mlflow_uri: str, tmp_path: Path
) -> None:
    dead = started(instance, f"{this_machine()}:{ended_process()}")
    tracking = Tracking(uri=mlflow_uri, experiment="dead runs", queue=str(tmp_path / "queue"))
    with tracking.materialization("step-1", "query_scores", {"dagster.run_id": dead}, {}):
        pass
    fail_dead_runs(instance)
    tell_what_is_untold(instance, replace(tracking, uri=f"http://127.0.0.1:{free_port()}"))
    assert tags(instance, dead)[KILLED_TAG] == UNTOLD
    assert [child.succeeded for child in tracking.runs()] == [True]
    tell_what_is_untold(instance, tracking)
    assert tags(instance, dead)[KILLED_TAG] == TOLD
    assert [(child.is_finished, child.succeeded) for child in tracking.runs()] == [(True, False)]


def tags(instance: dg.DagsterInstance, run_id: str) -> Mapping[str, str]:
    run = instance.get_run_by_id(run_id)
    assert run
    return run.tags
