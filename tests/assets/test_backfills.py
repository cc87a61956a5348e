"""What Dagster's UI starts: "Materialize all", and backfills of partitions of which some are up to date."""

from collections.abc import Collection
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill

from lorif_assets.assets.attribution_asset import ON_DEMAND_TAG, AttributionAsset
from lorif_assets.assets.graph import ASSETS, EVALUATION, GRAPH
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.automation.jobs import ASSET_JOBS
from lorif_assets.automation.sensors import automation_definitions
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES
from resources import dagster_resources
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

BACKFILL = "backfill"


def backfill(project: TinyProject, asset: str, *keys: str, selected: Collection[str] = ()) -> list[str]:
    """Run some partitions of an asset as a backfill does, and return what was logged for a person to read."""
    assets = [dg.AssetKey(name) for name in selected or [asset]]
    if project.instance.get_backfill(BACKFILL) is None:
        project.instance.add_backfill(
            PartitionBackfill(
                backfill_id=BACKFILL,
                status=BulkActionStatus.REQUESTED,
                from_failure=False,
                tags={},
                backfill_timestamp=0.0,
                asset_selection=assets,
            )
        )
    ends = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    result = dg.materialize(
        [one.definition for one in GRAPH],
        selection=[asset],
        instance=project.instance,
        partition_key=keys[0] if len(keys) == 1 else None,
        tags={"dagster/backfill": BACKFILL, **({} if len(keys) == 1 else ends)},
        resources=dagster_resources(project.opened),
        run_config={
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
    )
    return [record.user_message for record in project.instance.all_logs(result.run_id)]


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The partitions that are recorded because they were computed."""
    keys: list[str] = []
    commit, again = PartitionRun.commit, PartitionRun.commit_again

    def counted(run: PartitionRun, partition: str, *given: Any) -> Any:
        keys.append(partition)
        return commit(run, partition, *given)

    def uncounted(run: PartitionRun, partition: str, event: dg.AssetMaterialization) -> Any:
        yield from again(run, partition, event)
        keys.remove(partition)

    monkeypatch.setattr(PartitionRun, "commit", counted)
    monkeypatch.setattr(PartitionRun, "commit_again", uncounted)
    return keys


def test_a_backfill_of_what_is_up_to_date_says_so_and_computes_nothing_whatever_the_asset(
    recorded_project: TinyProject, computed: list[str]
) -> None:
    used = [asset for asset in ASSETS if asset.is_used(recorded_project.settings)]
    assert len(used) >= 8
    for asset in used:
        known = asset.partitions.get_partition_keys(dynamic_partitions_store=recorded_project.instance)
        for key in known[:1]:
            before = recorded_project.recorded(asset.name, key)
            said = backfill(recorded_project, asset.name, key)
            assert computed == [], asset.name
            assert f"{key} is up to date: nothing is computed" in said, asset.name
            after = recorded_project.recorded(asset.name, key)
            assert after.tags["dagster/data_version"] == before.tags["dagster/data_version"]
            assert {**after.metadata, **before.metadata} == after.metadata
            assert after.metadata["up to date"].value == "nothing was computed"


def test_a_backfill_computes_what_is_out_of_date_and_records_the_rest_as_it_was(
    recorded_project: TinyProject, computed: list[str]
) -> None:
    recorded_project.edit_shard(1, 4, "an error closes the file")
    said = backfill(recorded_project, "training_examples", *SHARDS)
    assert computed == [SHARDS[1]]
    assert [line for line in said if "is up to date" in line] == [
        f"{shard} is up to date: nothing is computed" for shard in (SHARDS[0], SHARDS[2])
    ]


def test_one_partition_by_hand_is_computed(recorded_project: TinyProject, computed: list[str]) -> None:
    recorded_project.run("training_examples", SHARDS[0])
    assert computed == [SHARDS[0]]


def test_what_dagster_does_not_know_to_be_stored_is_computed_by_a_backfill(
    private_project: TinyProject, computed: list[str]
) -> None:
    backfill(private_project, "training_examples", SHARDS[0])
    assert computed == [SHARDS[0]]


def test_a_partition_whose_last_run_failed_is_computed_by_a_backfill(
    recorded_project: TinyProject, computed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PartitionRun, "commit", die)
        with pytest.raises((KeyboardInterrupt, dg.DagsterExecutionInterruptedError)):
            recorded_project.run("training_examples", SHARDS[0])
    backfill(recorded_project, "training_examples", SHARDS[0])
    assert computed == [SHARDS[0]]


def test_materialize_all_leaves_the_evaluation_and_influcoder_out_and_says_how_to_start_them(
    recorded_project: TinyProject,
) -> None:
    every = [asset.name for asset in GRAPH]
    said = backfill(recorded_project, "method_scores", f"{CHECKPOINTS[1]}|{QUERY_SET}", selected=every)
    assert [line for line in said if "left out" in line and "`lorif evaluate`" in line]
    said = backfill(recorded_project, "influence_targets", CHECKPOINTS[1])
    assert [line for line in said if "left out" in line and "These settings have no use for it" in line]
    assert recorded_project.table(EVALUATED_SCORES).is_empty()


def test_the_evaluation_alone_is_started_by_a_backfill_of_it(recorded_project: TinyProject) -> None:
    project = recorded_project.with_settings(evaluation={"methods": ["lorif", "random"]})
    evaluation = [asset.name for asset in EVALUATION]
    backfill(project, "method_scores", f"{CHECKPOINTS[1]}|{QUERY_SET}", selected=evaluation)
    assert set(project.table(EVALUATED_SCORES)["method"]) == {"lorif", "random"}


@pytest.mark.parametrize("asset", EVALUATION, ids=lambda asset: asset.name)
def test_assets_of_the_evaluation_are_marked_and_have_a_job_of_their_own(asset: AttributionAsset) -> None:
    (spec,) = asset.definition.specs
    assert spec.tags[ON_DEMAND_TAG] == "true"
    assert "Nothing starts it by itself" in (spec.description or "")
    assert "nothing starts by itself" in (ASSET_JOBS[asset.name].description or "")


@pytest.mark.parametrize("asset", GRAPH, ids=lambda asset: asset.name)
def test_every_column_of_an_assets_table_says_what_it_means(asset: AttributionAsset) -> None:
    (spec,) = asset.definition.specs
    columns = spec.metadata["dagster/column_schema"].columns
    assert columns
    for column in columns:
        assert column.description, column.name
        assert column.description != "partition column"


def test_sensors_and_schedules_say_what_they_do(tiny_project: TinyProject) -> None:
    sensors, schedules = automation_definitions(tiny_project.settings)
    for one in (*sensors, *schedules):
        assert one.description, one.name
        assert len(one.description) > 40
