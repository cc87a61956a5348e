"""What cannot be read from outside fails as a partition of its own, and by itself holds nothing up."""

import json
import os
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus

from lorif_assets.assets.graph import ASSETS
from lorif_assets.attribution.factors import build_factors
from lorif_assets.automation.materialization import AssetUpdate, bring_up_to_date
from lorif_assets.automation.readiness import ready_partitions
from lorif_assets.automation.sensors import automation_definitions
from lorif_assets.automation.withdrawal import removed_shards
from lorif_assets.automation.work import GROUP_TAG, WORK_TAG, given_up, work_to_do
from lorif_assets.config.sections import AutomationSettings
from lorif_assets.config.sources import Source
from lorif_assets.data.shards import list_shards, read_shard
from lorif_assets.errors import LorifError
from lorif_assets.freshness.discovery import discover
from lorif_assets.freshness.view import Asked
from lorif_assets.lake.data_tables import REJECTED, TRAINING_EXAMPLES
from resources import dagster_resources
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

BAD = "docs-bad-00000"
IMPATIENT = AutomationSettings(max_attempts=1, backoff_seconds=0)


@pytest.fixture
def project(private_project: TinyProject) -> TinyProject:
    """The project with one file that cannot be read, and one whose text changed."""
    (private_project.root / "data/bad.jsonl.gz").write_bytes(b"\x1f\x8b cut")
    private_project.edit_shard(1, 4, "an error closes the file")
    return private_project


def test_in_a_run_of_many_partitions_the_others_are_stored_and_the_run_names_the_one_that_failed(
    project: TinyProject,
) -> None:
    with pytest.raises(LorifError, match=f"1 of 4 shards failed, the first {BAD}: .*bad.jsonl.gz cannot be read"):
        project.run("training_examples", SHARDS[0], BAD)
    assert set(project.table(TRAINING_EXAMPLES)["shard"]) == set(SHARDS)
    assert set(project.stale("training_examples")) == {BAD}
    assert project.recorded("training_examples", SHARDS[1])


def test_every_failure_of_a_run_is_named(project: TinyProject) -> None:
    (project.root / "data/00000.jsonl").write_text('{"id": "x", "text": ""}')
    with pytest.raises(LorifError) as caught:
        project.run("training_examples", SHARDS[0], BAD)
    assert "2 of 4 shards failed" in str(caught.value)
    assert f"{SHARDS[0]}: data/00000.jsonl, rows 0 to 0: none of 1 rows can be used" in str(caught.value)
    assert BAD in str(caught.value)


def test_rows_set_aside_are_stored_with_the_file_they_are_from(project: TinyProject) -> None:
    places = project.table(REJECTED, stage="training_examples")["place"].to_list()
    assert sorted(places) == ["data/00002.jsonl, row 12", "data/00002.jsonl, row 13"]


def test_a_file_that_cannot_be_read_is_no_withdrawal(project: TinyProject) -> None:
    (project.root / "data/00000.jsonl").rename(project.root / "data/00000.jsonl.gz")
    found = discover(project.opened)
    assert BAD in found.shards
    assert removed_shards(project.lake, found) == []


def test_what_failed_too_often_holds_nothing_up_any_more(project: TinyProject) -> None:
    project.run("training_examples", SHARDS[1])
    project.register_partitions()
    waiting = dict(ready_partitions(project.freshness))
    assert set(waiting["training_examples"]) == {BAD}
    assert not waiting["svd_preconditioners"]
    (work,) = (
        one
        for one in work_to_do(ready_partitions(project.freshness), ASSETS, project.instance, IMPATIENT)
        if one.asset == "training_examples"
    )
    job = dg.Definitions(jobs=[_nothing]).resolve_job_def("_nothing")
    run = project.instance.create_run_for_job(
        job, tags={WORK_TAG: work.version, GROUP_TAG: work.group}, status=DagsterRunStatus.NOT_STARTED
    )
    project.instance.report_run_failed(run, "on purpose")
    left = dict(
        ready_partitions(
            project.freshness, given_up=lambda asset, stale: given_up(project.instance, IMPATIENT, asset, stale)
        )
    )
    assert set(left["gradient_factors"]) == {f"{checkpoint}|{SHARDS[1]}" for checkpoint in CHECKPOINTS}
    for checkpoint in CHECKPOINTS:
        project.run("gradient_factors", f"{checkpoint}|{SHARDS[1]}")
    left = dict(
        ready_partitions(
            project.freshness, given_up=lambda asset, stale: given_up(project.instance, IMPATIENT, asset, stale)
        )
    )
    assert left["svd_preconditioners"]


@dg.job
def _nothing() -> None: ...


def test_the_sensors_say_what_they_cannot_look_at_and_add_the_rest(project: TinyProject) -> None:
    toml = project.root / "lorif.toml"
    toml.write_text(f'[[sources]]\nname = "more"\npath = "nowhere"\n{toml.read_text()}')
    (project.root / "queries/more.jsonl").write_text(json.dumps({"id": "q", "prompt": "a", "completion": " file"}))
    changed = TinyProject.open(project.root, project.instance)
    discovery = automation_definitions(changed.settings)[0][0]
    resources = dagster_resources(changed.opened)
    with dg.build_sensor_context(instance=changed.instance, resources=resources) as context:
        result = discovery(context)
    assert isinstance(result, dg.SensorResult)
    added = {key for request in result.dynamic_partitions_requests or () for key in request.partition_keys}
    assert added == {BAD, "more"}
    changed.register_partitions()
    with dg.build_sensor_context(instance=changed.instance, resources=resources) as context:
        skipped = discovery(context)
    assert isinstance(skipped, dg.SkipReason)
    assert "source more: source 'more': nothing is at" in str(skipped.skip_message)


def test_what_is_made_from_a_shard_whose_factors_fail_waits_and_the_rest_is_done(
    private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_project.edit_shard(1, 4, "an error closes the file")
    (private_project.root / "queries/more.jsonl").write_text('{"id": "q", "prompt": "a", "completion": " file"}')
    compute = build_factors.factor_rows

    def fail_at_one(attributed: object, *rest: object) -> object:
        if attributed.record.name == CHECKPOINTS[0]:  # type: ignore[attr-defined]
            raise RuntimeError("out of memory, on purpose")
        return compute(attributed, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(build_factors, "factor_rows", fail_at_one)
    updates: dict[str, AssetUpdate] = {}
    with pytest.raises(LorifError) as caught:
        updates.update(
            (update.asset, update)
            for update in bring_up_to_date(private_project.instance, ASSETS, private_project.opened)
        )
    assert str(caught.value).count("failed:") == 1
    assert "out of memory, on purpose" in str(caught.value)
    assert set(updates["gradient_factors"].failed) == {f"{CHECKPOINTS[0]}|{SHARDS[1]}"}
    assert set(updates["query_scores"].waiting) == {f"{CHECKPOINTS[0]}|{name}" for name in (QUERY_SET, "more")}
    assert set(updates["query_scores"].partitions) == {f"{CHECKPOINTS[1]}|{name}" for name in (QUERY_SET, "more")}


def test_a_text_file_that_may_not_be_read_is_set_aside_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("words")
    source = Source(name="notes", path="*.txt")
    (before,) = list_shards(source, tmp_path)
    opened, allowed = Path.open, os.access

    def deny(path: Path, *arguments: object, **options: object) -> object:
        if path.name == "b.txt":
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", deny)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "b.txt" and allowed(path, mode))
    (piece,) = list_shards(source, tmp_path)
    raw = read_shard(source, piece, tmp_path)
    assert [row["id"] for _, row in raw.rows] == ["notes/a.txt"]
    assert "b.txt cannot be read: Permission denied" in raw.malformed[0].reason
    # With the permission, it is another version: the shard is read again.
    assert piece.version != before.version


def test_a_damaged_checkpoint_that_nobody_asked_for_is_told_and_fails_nothing(private_project: TinyProject) -> None:
    damaged = private_project.root / "checkpoints" / CHECKPOINTS[0] / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    for file in (damaged.parent, *damaged.parent.iterdir()):
        os.utime(file, (0, 0))
    told: list[str] = []
    asked = Asked((CHECKPOINTS[-1],))
    list(bring_up_to_date(private_project.instance, ASSETS, private_project.opened, told.append, asked=asked))
    assert any(f"checkpoint {CHECKPOINTS[0]} is left out: " in line for line in told)
    with pytest.raises(LorifError, match=f"the checkpoint '{CHECKPOINTS[0]}' cannot be used"):
        list(bring_up_to_date(private_project.instance, ASSETS, private_project.opened, asked=Asked((CHECKPOINTS[0],))))
    with pytest.raises(LorifError, match=f"checkpoint {CHECKPOINTS[0]}: "):
        list(bring_up_to_date(private_project.instance, ASSETS, private_project.opened))
