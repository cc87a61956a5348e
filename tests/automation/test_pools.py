"""Who waits for a place in a pool says so, and does not wait for a run that is dead."""

import time
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.automation import pools
from lorif_assets.automation.dead_runs import PROCESS_TAG, this_machine
from lorif_assets.automation.pools import watched_pool
from lorif_assets.automation.work import GROUP_TAG
from lorif_assets.config.sections import AutomationSettings

_GONE = {PROCESS_TAG: f"{this_machine()}:{2**22 + 1}:0.00"}


@pytest.mark.parametrize(
    ("tags", "stalled_after_seconds"),
    [({GROUP_TAG: "gradient_factors step"}, 1), (_GONE, 900)],
    ids=["silent", "killed"],
)
def test_the_place_of_a_run_that_is_dead_becomes_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str], stalled_after_seconds: int
) -> None:
    monkeypatch.setattr(pools, "_LOOK_SECONDS", 0.1)
    said: list[str] = []
    with dg.DagsterInstance.local_temp(
        str(tmp_path), overrides={"concurrency": {"pools": {"default_limit": 1}}}
    ) as instance:
        storage = instance.event_log_storage
        storage.set_concurrency_slots("gpu", 1)
        run = create_run_for_test(instance, status=DagsterRunStatus.STARTED, tags=tags)
        storage.claim_concurrency_slot("gpu", run.run_id, "step")
        automation = AutomationSettings(stalled_after_seconds=stalled_after_seconds)
        with watched_pool(instance, gradient_factors, automation, said.append):
            end = time.monotonic() + 60
            while not storage.claim_concurrency_slot("gpu", "who asks now", "step").is_claimed:
                assert time.monotonic() < end
                time.sleep(0.1)
        found = instance.get_run_by_id(run.run_id)
        assert found
        assert found.status is DagsterRunStatus.FAILURE
    assert said == [f"waiting for a place in Dagster's pool gpu, which run {run.run_id[:8]} holds"]
