"""What the checks said when they last ran."""

import dagster as dg

from lorif_assets.assets.graph import ASSETS
from lorif_assets.checks.data import example_ids_are_unique
from lorif_assets.checks.latest_results import latest_results
from lorif_assets.config.settings import Settings
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.project import Project
from resources import dagster_resources
from tests.stored_influences import put, stored_influences


def run_check(home, project):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        dg.materialize(
            [*(asset.definition for asset in ASSETS), example_ids_are_unique],
            selection=dg.AssetSelection.checks(example_ids_are_unique.check_key),
            instance=instance,
            resources=dagster_resources(project),
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )


def test_the_newest_outcome_of_each_check_counts(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    lake = stored_influences(tmp_path / "lake")
    project = Project.of(Settings(base=tmp_path, tracking={"uri": "none"}))
    run_check(home, project)
    (outcome,) = latest_results(home)
    assert (outcome.name, outcome.passed, outcome.remedy) == ("example_ids_are_unique", True, None)
    twice = [{"shard": "other", "example_id": "fox", "format": "text", "text": "twice", "row": 0}]
    put(lake, TRAINING_EXAMPLES, twice)
    run_check(home, project)
    (outcome,) = latest_results(home)
    assert not outcome.passed
    assert "fox" in outcome.words


def test_a_check_that_a_run_has_only_planned_leaves_what_it_said_before(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    stored_influences(tmp_path / "lake")
    project = Project.of(Settings(base=tmp_path, tracking={"uri": "none"}))
    run_check(home, project)
    before = latest_results(home)
    key = example_ids_are_unique.check_key
    definitions = dg.Definitions(
        assets=[asset.definition for asset in ASSETS],
        asset_checks=[example_ids_are_unique],
        jobs=[dg.define_asset_job("planned", selection=dg.AssetSelection.checks(key))],
        resources=dagster_resources(project),
    )
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.create_run_for_job(definitions.resolve_job_def("planned"))
    assert latest_results(home) == before
    assert [one.name for one in before] == [key.name]


def test_where_nothing_ran_there_is_nothing_and_nothing_is_made(tmp_path):
    assert latest_results(tmp_path / "none") == []
    assert latest_results(tmp_path) == []
    assert list(tmp_path.iterdir()) == []
