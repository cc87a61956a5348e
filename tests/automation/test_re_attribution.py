"""What is launched next: the stale partitions whose inputs are true, once each, and not what failed too often."""

import time
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from lorif_assets.assets.graph import ASSETS
from lorif_assets.assets.partitions import RANGE_END_TAG, RANGE_START_TAG
from lorif_assets.automation.dead_runs import fail_stalled_runs
from lorif_assets.automation.jobs import ASSET_JOBS
from lorif_assets.automation.readiness import ready_partitions
from lorif_assets.automation.sensors import automation_definitions
from lorif_assets.automation.work import (
    GROUP_TAG,
    WORK_TAG,
    Work,
    stretches,
    work_to_do,
)
from lorif_assets.config.sections import AutomationSettings
from resources import dagster_resources
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

PATIENT = AutomationSettings(max_attempts=2, backoff_seconds=3_600)


def ready(project: TinyProject) -> dict[str, set[str]]:
    return {asset: set(stale) for asset, stale in ready_partitions(project.freshness) if stale}


def work(project: TinyProject, automation: AutomationSettings = PATIENT) -> list[Work]:
    project.register_partitions()
    return list(work_to_do(ready_partitions(project.freshness), ASSETS, project.instance, automation))


def record_run(project: TinyProject, tags: dict[str, str], status: DagsterRunStatus) -> dg.DagsterRun:
    """Put a run with these tags into Dagster's storage, in this state, without executing anything."""
    job = dg.Definitions(jobs=[_nothing]).resolve_job_def("_nothing")
    run = project.instance.create_run_for_job(job, tags=tags, status=DagsterRunStatus.NOT_STARTED)
    if status is DagsterRunStatus.FAILURE:
        project.instance.report_run_failed(run, "on purpose")
    elif status is DagsterRunStatus.STARTED:
        started = dg.DagsterEvent(
            dg.DagsterEventType.RUN_START.value, job_name=run.job_name, message="started on purpose"
        )
        project.instance.report_dagster_event(started, run.run_id)
    return run


@dg.job
def _nothing() -> None: ...


def test_nothing_is_ready_when_everything_is_true(tiny_project: TinyProject) -> None:
    assert ready(tiny_project) == {}


def test_what_follows_an_edited_shard_waits_until_the_shard_is_read(private_project: TinyProject) -> None:
    private_project.edit_shard(1, 2, "another sentence about files and blocks that is new here")
    assert ready(private_project) == {"training_examples": {SHARDS[1]}}
    private_project.run("training_examples", SHARDS[1])
    assert ready(private_project) == {"gradient_factors": {f"{name}|{SHARDS[1]}" for name in CHECKPOINTS}}
    private_project.run("gradient_factors", f"{CHECKPOINTS[0]}|{SHARDS[1]}")
    waiting = ready(private_project)
    assert waiting["gradient_factors"] == {f"{CHECKPOINTS[1]}|{SHARDS[1]}"}
    assert {key.partition("|")[0] for key in waiting["svd_preconditioners"]} == {CHECKPOINTS[0]}
    assert "query_scores" not in waiting


def test_a_new_query_set_asks_for_its_scores_alone(private_project: TinyProject) -> None:
    source = private_project.root / "queries" / f"{QUERY_SET}.jsonl"
    (source.with_name("more.jsonl")).write_text(source.read_text())
    private_project.run("query_examples", "more")
    assert ready(private_project) == {"query_scores": {f"{name}|more" for name in CHECKPOINTS}}


def test_a_run_takes_so_many_partitions_and_the_next_one_the_rest(tiny_project: TinyProject) -> None:
    tiny_project.register_partitions()
    (asset,) = [asset for asset in ASSETS if asset.name == "gradient_factors"]
    stale = {f"{name}|{shard}" for name in CHECKPOINTS for shard in SHARDS}
    whole = list(stretches(asset, stale, tiny_project.instance))
    cut = list(stretches(asset, stale, tiny_project.instance, limit=len(SHARDS) - 1))
    assert [list(shards) for shards in whole] == [cut[k] + cut[k + 1] for k in range(0, len(cut), 2)]
    assert {len(shards) for shards in cut} == {len(SHARDS) - 1, 1}


def test_what_is_left_over_by_one_run_is_the_next_ones_work(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = private_project.with_settings(recipe={"rank": 2})
    project.run("checkpoints", *CHECKPOINTS)
    monkeypatch.setattr("lorif_assets.automation.work.MOST_PARTITIONS", len(SHARDS) - 1)
    found = [found for found in work(project) if found.asset == "gradient_factors"]
    assert [len(found.partitions) for found in found] == [len(SHARDS) - 1] * len(CHECKPOINTS)


def test_neighbouring_partitions_of_a_checkpoint_are_one_run(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"rank": 2})
    project.run("checkpoints", *CHECKPOINTS)
    found = [found for found in work(project) if found.asset == "gradient_factors"]
    assert [found.partitions for found in found] == [tuple(f"{name}|{s}" for s in SHARDS) for name in CHECKPOINTS]
    assert found[0].tags[RANGE_START_TAG] == f"{CHECKPOINTS[0]}|{SHARDS[0]}"
    assert found[0].tags[RANGE_END_TAG] == f"{CHECKPOINTS[0]}|{SHARDS[-1]}"


def test_work_that_is_in_flight_is_not_launched_twice(private_project: TinyProject) -> None:
    private_project.edit_shard(0, 0, "a new first sentence")
    (first,) = work(private_project)
    record_run(private_project, first.tags, DagsterRunStatus.NOT_STARTED)
    assert work(private_project) == []


def test_failed_work_waits_and_is_left_after_the_last_attempt(private_project: TinyProject) -> None:
    private_project.edit_shard(0, 0, "a new first sentence")
    (first,) = work(private_project)
    record_run(private_project, first.tags, DagsterRunStatus.FAILURE)
    eager = AutomationSettings(max_attempts=2, backoff_seconds=0)
    assert work(private_project) == []
    assert work(private_project, eager) == [first]
    record_run(private_project, first.tags, DagsterRunStatus.FAILURE)
    assert work(private_project, eager) == []


def test_a_clock_that_is_set_back_does_not_make_failed_work_wait(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_project.edit_shard(0, 0, "a new first sentence")
    (first,) = work(private_project)
    record_run(private_project, first.tags, DagsterRunStatus.FAILURE)
    now = time.time()
    monkeypatch.setattr("lorif_assets.automation.work.time.time", lambda: now - 86_400)
    assert work(private_project) == [first]


def test_a_setting_that_is_corrected_starts_the_attempts_anew(private_project: TinyProject) -> None:
    private_project.edit_shard(0, 0, "a new first sentence")
    for _ in range(private_project.settings.automation.max_attempts):
        patient = private_project.with_settings(automation={"backoff_seconds": 0})
        (request,) = launched(patient)
        record_run(patient, {name: request.tags[name] for name in (GROUP_TAG, WORK_TAG)}, DagsterRunStatus.FAILURE)
    assert launched(patient) == []
    assert launched(patient.with_settings(automation={"interval_seconds": 77})) == []
    (again,) = launched(patient.with_settings(data={"max_rejected_share": 0.5}))
    assert again.partition_key == request.partition_key


def test_a_further_change_starts_the_attempts_anew(private_project: TinyProject) -> None:
    private_project.edit_shard(0, 0, "a new first sentence")
    (first,) = work(private_project)
    record_run(private_project, first.tags, DagsterRunStatus.FAILURE)
    time.sleep(0.01)
    private_project.edit_shard(0, 0, "a first sentence that is newer still")
    (second,) = work(private_project)
    assert second.version != first.version


@pytest.mark.parametrize("seconds", [120, -7_200], ids=["two minutes later", "after a clock was set back by two hours"])
def test_a_run_without_a_sign_of_life_is_failed_and_its_work_is_free_again(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch, seconds: int
) -> None:
    run = record_run(private_project, {GROUP_TAG: "gradient_factors step"}, DagsterRunStatus.STARTED)
    automation = AutomationSettings(stalled_after_seconds=60)
    assert fail_stalled_runs(private_project.instance, automation, GROUP_TAG) == []
    later = time.time() + seconds
    monkeypatch.setattr("lorif_assets.automation.dead_runs.time.time", lambda: later)
    assert fail_stalled_runs(private_project.instance, automation, GROUP_TAG) == [run.run_id]
    found = private_project.instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is DagsterRunStatus.FAILURE


def test_runs_of_others_are_never_failed(private_project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    record_run(private_project, {}, DagsterRunStatus.STARTED)
    later = time.time() + 10_000
    monkeypatch.setattr("lorif_assets.automation.dead_runs.time.time", lambda: later)
    assert fail_stalled_runs(private_project.instance, AutomationSettings(), GROUP_TAG) == []


def evaluate(project: TinyProject, name: str) -> Any:
    sensors, _ = automation_definitions(project.settings)
    (sensor,) = (sensor for sensor in sensors if sensor.name == name)
    definitions = dg.Definitions(
        assets=[asset.definition for asset in ASSETS],
        jobs=list(ASSET_JOBS.values()),
        resources=dagster_resources(project.opened),
    )
    with dg.build_sensor_context(
        instance=project.instance, resources=dagster_resources(project.opened), definitions=definitions
    ) as context:
        return sensor(context)


def launched(project: TinyProject) -> list[dg.RunRequest]:
    result = evaluate(project, "re_attribution_sensor")
    return [] if isinstance(result, dg.SkipReason) else list(result.run_requests)


def test_the_sensor_launches_an_edited_shard_by_its_job(private_project: TinyProject) -> None:
    private_project.edit_shard(0, 0, "a new first sentence")
    result = evaluate(private_project, "re_attribution_sensor")
    (request,) = result.run_requests
    assert (request.job_name, request.partition_key) == ("materialize_training_examples", SHARDS[0])


def test_the_sensor_rests_when_everything_is_true(tiny_project: TinyProject) -> None:
    assert isinstance(evaluate(tiny_project, "re_attribution_sensor"), dg.SkipReason)


def test_a_missing_source_is_an_error_and_never_a_withdrawal(private_project: TinyProject) -> None:
    project = private_project.with_settings(automation={"on_removed": "withdraw"})
    (project.root / "data").rename(project.root / "moved")
    for sensor in ("re_attribution_sensor", "withdrawal_sensor"):
        skipped = evaluate(project, sensor)
        assert isinstance(skipped, dg.SkipReason)
        assert "data" in str(skipped.skip_message)


def test_removed_shards_are_kept_and_reported_unless_told_otherwise(private_project: TinyProject) -> None:
    (private_project.root / "data/00002.jsonl").unlink()
    kept = evaluate(private_project, "withdrawal_sensor")
    assert isinstance(kept, dg.SkipReason)
    assert SHARDS[2] in str(kept.skip_message)
    assert ready(private_project) == {}
    told = private_project.with_settings(automation={"on_removed": "withdraw"})
    (request,) = evaluate(told, "withdrawal_sensor").run_requests
    assert request.run_config["ops"]["withdraw_shards"]["config"] == {"shards": [SHARDS[2]]}
