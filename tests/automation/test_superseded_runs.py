"""Which runs leave Dagster's records: those that are over, old, and made nothing that it shows as newest."""

from datetime import UTC, datetime, timedelta

import dagster as dg

from lorif_assets.assets.graph import GRAPH
from lorif_assets.automation.check_runs import failed_checks
from lorif_assets.automation.jobs import vacuum as vacuum_job
from lorif_assets.automation.superseded_runs import delete_runs, superseded_runs
from lorif_assets.checks import CHECKS
from resources import dagster_resources
from tests.conftest import SHARDS, TinyProject

LATER = datetime.now(UTC) + timedelta(days=1)


def superseded(project: TinyProject, before: datetime = LATER) -> list[str]:
    return superseded_runs(project.instance, GRAPH, [check.check_key for check in CHECKS], before)


def test_a_run_whose_partitions_were_all_made_again_is_superseded(private_project: TinyProject) -> None:
    both = private_project.run("training_examples", SHARDS[0], SHARDS[1]).run_id
    first = private_project.run("training_examples", SHARDS[0]).run_id
    assert superseded(private_project) == []
    second = private_project.run("training_examples", SHARDS[0]).run_id
    assert superseded(private_project) == [first]
    private_project.run("training_examples", SHARDS[1])
    assert set(superseded(private_project)) == {both, first}
    assert superseded(private_project, datetime.now(UTC) - timedelta(days=1)) == []
    delete_runs(private_project.instance, superseded(private_project))
    assert superseded(private_project) == []
    # Dagster still knows what it knew of the partitions.
    for shard, run in ((SHARDS[0], second),):
        (record,) = private_project.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey("training_examples"), asset_partitions=[shard]), limit=1
        ).records
        assert record.run_id == run


def test_a_run_that_made_only_what_is_no_partition_any_more_is_superseded(private_project: TinyProject) -> None:
    gone = private_project.run("training_examples", SHARDS[0]).run_id
    both = private_project.run("training_examples", SHARDS[0], SHARDS[1]).run_id
    private_project.run("training_examples", SHARDS[2])
    private_project.instance.delete_dynamic_partition("shards", SHARDS[0])
    assert superseded(private_project) == [gone], "the other run made the newest of a shard that is there"
    private_project.instance.delete_dynamic_partition("shards", SHARDS[1])
    assert set(superseded(private_project)) == {gone, both}


def test_the_newest_evaluation_of_a_check_stays(private_project: TinyProject) -> None:
    for _ in range(2):
        failed_checks(private_project.instance, GRAPH, ["training_examples"], private_project.opened)
    newest, older = (run.run_id for run in private_project.instance.get_runs())
    assert superseded(private_project) == [older]
    assert newest != older


def test_a_run_that_is_not_over_stays(private_project: TinyProject) -> None:
    private_project.instance.create_run_for_job(vacuum_job, status=dg.DagsterRunStatus.STARTED)
    assert superseded(private_project) == []


def test_the_vacuum_leaves_young_runs_and_counts_old_ones(private_project: TinyProject) -> None:
    for _ in range(2):
        private_project.run("training_examples", SHARDS[0])
    result = vacuum_job.execute_in_process(
        instance=private_project.instance, resources=dagster_resources(private_project.opened)
    )
    assert result.success
    logs = private_project.instance.all_logs(result.run_id)
    assert any("0 runs deleted" in entry.user_message for entry in logs)
    assert private_project.instance.get_runs_count() == 3
