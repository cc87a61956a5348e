"""Runs whose process is gone are failed, and block nobody."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from lorif_assets.automation.dead_runs import PROCESS_TAG, fail_dead_runs, process_tag


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    pools = {"concurrency": {"pools": {"default_limit": 1}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=pools) as found:
        found.event_log_storage.set_concurrency_slots("gpu", 1)
        yield found


def started(instance: dg.DagsterInstance, process: str) -> str:
    run = create_run_for_test(instance, status=DagsterRunStatus.STARTED, tags={PROCESS_TAG: process})
    return run.run_id


def ended_process() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return f"{process.pid}:{time.time():.2f}"


def status(instance: dg.DagsterInstance, run_id: str) -> DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run
    return run.status


def test_a_run_whose_process_is_gone_is_failed_and_others_are_left(instance: dg.DagsterInstance) -> None:
    dead = started(instance, f"{socket.gethostname()}:{ended_process()}")
    alive, elsewhere = started(instance, process_tag()), started(instance, f"another-machine:{ended_process()}")
    assert fail_dead_runs(instance) == [dead]
    assert status(instance, dead) is DagsterRunStatus.FAILURE
    assert {status(instance, run) for run in (alive, elsewhere)} == {DagsterRunStatus.STARTED}


def test_a_process_id_that_was_given_out_again_is_another_process(instance: dg.DagsterInstance) -> None:
    dead = started(instance, f"{socket.gethostname()}:{os.getpid()}:{time.time() - 1e6:.2f}")
    assert fail_dead_runs(instance) == [dead]


def test_of_a_run_that_tells_no_start_the_process_id_is_believed(instance: dg.DagsterInstance) -> None:
    started(instance, f"{socket.gethostname()}:{os.getpid()}")
    dead = started(instance, f"{socket.gethostname()}:{ended_process().partition(':')[0]}")
    assert fail_dead_runs(instance) == [dead]


def test_what_a_dead_run_held_or_waited_for_goes_to_the_next(instance: dg.DagsterInstance) -> None:
    storage = instance.event_log_storage
    dead = [started(instance, f"{socket.gethostname()}:{ended_process()}") for _ in range(2)]
    for run_id in dead:
        storage.claim_concurrency_slot("gpu", run_id, "step")
    successor = started(instance, process_tag())
    assert not storage.claim_concurrency_slot("gpu", successor, "step").is_claimed
    assert set(fail_dead_runs(instance)) == set(dead)
    assert storage.claim_concurrency_slot("gpu", successor, "step").is_claimed
