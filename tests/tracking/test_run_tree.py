"""What a person who tracks runs finds in MLflow: a run of the project by training step, and one of each checkpoint."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lorif_assets.tracking import Tracking
from lorif_assets.tracking.facts import CheckpointFacts, TrackedDataset
from lorif_assets.tracking.metric_names import metric_name
from lorif_assets.tracking.partition_figures import combined_figures, figures_csv
from lorif_assets.tracking.source_commit import source_commit

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

DATASET = TrackedDataset(
    name="docs",
    digest="0123456789abcdef",
    source_type="local",
    source=json.dumps({"uri": "/data/docs"}),
    schema=json.dumps({"mlflow_colspec": []}),
    profile=json.dumps({"num_rows": 36, "shards": 3}),
)


@pytest.fixture
def tracking(mlflow_uri: str, request: pytest.FixtureRequest, tmp_path: Path) -> Tracking:
    return Tracking(
        uri=mlflow_uri, experiment=request.node.name, address="http://mlflow.example", queue=str(tmp_path / "queue")
    )


@pytest.fixture
def client(mlflow_uri: str) -> "MlflowClient":
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=mlflow_uri)


@pytest.fixture
def away(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """The same where MLflow cannot be reached."""
    monkeypatch.setattr("lorif_assets.tracking._silent_since", {})
    return replace(tracking, uri="http://127.0.0.1:9")


def facts(step: int | None, **others: str) -> CheckpointFacts:
    return CheckpointFacts(
        step=step,
        project="my project",
        lake="/it's/lake",
        recipe=others.get("recipe", "r1"),
        params={"r": "8"},
        tags={"mlflow.source.git.commit": "c0ffee"},
        checkpoint_tags={"lorif.step": str(step)},
        checkpoint_note="of the checkpoint",
        project_note="of the project",
    )


def report(tracking: Tracking, checkpoint: str, step: int | None, loss: float, recipe: str = "r1") -> None:
    with tracking.materialization(
        checkpoint, "query_scores", {"dagster.run_id": "abc"}, {}, facts=facts(step, recipe=recipe)
    ) as run:
        assert run is not None
        run.checkpoint_metrics({"loss": loss})


def named(client: "MlflowClient", tracking: Tracking, asset: str) -> "list[Run]":
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert experiment is not None
    return list(
        client.search_runs(
            [experiment.experiment_id], f"tags.`lorif.asset` = '{asset}'", order_by=["attributes.start_time ASC"]
        )
    )


def series(client: "MlflowClient", run: "Run", name: str) -> list[tuple[int, float]]:
    return [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]


def test_the_run_of_the_project_has_figures_by_training_step(tracking: Tracking, client: "MlflowClient") -> None:
    for checkpoint, step, loss in (("step-9", 9, 3.0), ("step-100", 100, 2.0), ("step-20", 20, 2.5)):
        report(tracking, checkpoint, step, loss)
    (project,) = named(client, tracking, "project")
    assert project.info.run_name == "my project"
    assert sorted(series(client, project, "loss")) == [(9, 3.0), (20, 2.5), (100, 2.0)]
    checkpoints = {run.info.run_name: run for run in named(client, tracking, "checkpoint")}
    assert {name: run.data.metrics["loss"] for name, run in checkpoints.items()} == {
        "step-9": 3.0,
        "step-20": 2.5,
        "step-100": 2.0,
    }
    assert series(client, checkpoints["step-20"], "loss") == [(20, 2.5)]


def test_a_figure_that_is_told_again_is_no_second_point_and_one_that_changed_is_the_newest(
    tracking: Tracking, client: "MlflowClient"
) -> None:
    for loss in (3.0, 3.0, 2.0, 2.0):
        report(tracking, "step-9", 9, loss)
    (project,) = named(client, tracking, "project")
    assert series(client, project, "loss") == [(9, 3.0), (9, 2.0)]
    assert project.data.metrics["loss"] == 2.0


def test_a_checkpoint_without_a_step_has_figures_and_is_in_no_chart(tracking: Tracking, client: "MlflowClient") -> None:
    report(tracking, "final", None, 2.0)
    (checkpoint,) = named(client, tracking, "checkpoint")
    (project,) = named(client, tracking, "project")
    assert (checkpoint.data.metrics, project.data.metrics) == ({"loss": 2.0}, {})


def test_another_recipe_and_another_lake_have_runs_of_their_own(tracking: Tracking, client: "MlflowClient") -> None:
    report(tracking, "step-9", 9, 3.0)
    report(tracking, "step-9", 9, 2.0, recipe="r2")
    with tracking.checkpoint("step-9", replace(facts(9), lake="/other/lake")):
        pass
    for asset in ("checkpoint", "project"):
        assert len(named(client, tracking, asset)) == 3


def test_a_run_says_what_it_is_of(tracking: Tracking, client: "MlflowClient") -> None:
    with tracking.materialization(
        "step-9",
        "gradient_factors",
        {"dagster.run_id": "abc"},
        {},
        facts=facts(9),
        partitions=["step-9|docs-0", "step-9|docs-1", "step-9|docs-2"],
    ) as run:
        assert run is not None
        run.datasets([DATASET])
        run.text("<html>", "reports/questions.html", "checkpoint")
        run.text("<html>", "reports/comparison/questions.html", "project")
        experiment = client.get_experiment_by_name(tracking.experiment)
        assert experiment is not None
        where = f"http://mlflow.example/#/experiments/{experiment.experiment_id}/runs"
        assert run.url == f"{where}/{run.run_id}?workflowType=machine_learning"
    (checkpoint,), (project,) = named(client, tracking, "checkpoint"), named(client, tracking, "project")
    (child,) = named(client, tracking, "gradient_factors")
    assert child.info.run_name == "gradient_factors step-9|docs-0 and 2 more"
    assert child.data.tags["mlflow.parentRunId"] == checkpoint.info.run_id
    assert "mlflow.parentRunId" not in {**checkpoint.data.tags, **project.data.tags}
    for found, note in ((checkpoint, "of the checkpoint"), (project, "of the project")):
        assert found.data.params == {"r": "8"}
        assert found.data.tags["mlflow.source.git.commit"] == "c0ffee"
        assert found.data.tags["mlflow.note.content"] == note
    assert checkpoint.data.tags["lorif.step"] == "9"
    (logged,) = checkpoint.inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("docs", DATASET.digest)
    assert json.loads(logged.dataset.profile) == {"num_rows": 36, "shards": 3}
    assert {(tag.key, tag.value) for tag in logged.tags} == {("mlflow.data.context", "training")}
    assert [one.path for one in client.list_artifacts(checkpoint.info.run_id, "reports")] == ["reports/questions.html"]
    assert [one.path for one in client.list_artifacts(project.info.run_id, "reports/comparison")] == [
        "reports/comparison/questions.html"
    ]


def test_the_duration_of_a_checkpoints_run_is_that_of_its_children_and_its_state_that_of_the_last(
    tracking: Tracking, client: "MlflowClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1_000_000, 100_000_000, 5_000))
    for module in ("lorif_assets.tracking", "lorif_assets.tracking.tracked_run"):
        monkeypatch.setattr(f"{module}.now", partial(next, clock))
    for _ in range(2):
        with tracking.materialization("step-9", "query_scores", {}, {}, facts=facts(9)):
            pass
    with (
        pytest.raises(ValueError, match="no"),
        tracking.materialization("step-9", "gradient_factors", {}, {}, facts=facts(9)),
    ):
        raise ValueError("no")
    (checkpoint,) = named(client, tracking, "checkpoint")
    children = [*named(client, tracking, "query_scores"), *named(client, tracking, "gradient_factors")]
    taken = [child.info.end_time - child.info.start_time for child in children]
    assert len(taken) == 3
    assert checkpoint.info.end_time - checkpoint.info.start_time == sum(taken)
    assert checkpoint.info.status == "FAILED"


def test_figures_of_partitions_are_told_together_and_in_a_table(tracking: Tracking, client: "MlflowClient") -> None:
    by_shard = {
        "a": {"tokens": 10.0, "tokens_per_second": 5.0, "seconds": 2.0},
        "b": {"tokens": 90.0, "tokens_per_second": 9.0, "seconds": 10.0},
    }
    with tracking.materialization("step-9", "gradient_factors", {}, {}, facts=facts(9)) as run:
        assert run is not None
        run.partitions(by_shard, sums={"tokens", "seconds"}, weights={"tokens_per_second": "seconds"})
    (child,) = named(client, tracking, "gradient_factors")
    assert child.data.metrics == {"tokens": 100.0, "seconds": 12.0, "tokens_per_second": pytest.approx(100 / 12)}
    assert {one.step for name in child.data.metrics for one in client.get_metric_history(child.info.run_id, name)} == {
        9
    }
    assert [one.path for one in client.list_artifacts(child.info.run_id)] == ["partitions.csv"]


def test_figures_of_the_table_stand_under_their_names_and_one_that_a_partition_lacks_is_empty() -> None:
    assert figures_csv({"a,1": {"x": 1.0}, "b": {"y": 2.0}}).splitlines() == ["partition,x,y", '"a,1",1.0,', "b,,2.0"]
    assert combined_figures({"a": {"x": 1.0}, "b": {"y": 2.0}}, sums=["x"], weights={"y": "x"}) == {"x": 1.0, "y": 2.0}


def test_what_is_told_of_checkpoint_and_project_while_mlflow_is_away_is_told_later(
    away: Tracking, tracking: Tracking, client: "MlflowClient", tmp_path: Path
) -> None:
    with away.materialization("step-9", "query_scores", {}, {}, facts=facts(9), partitions=["step-9|questions"]) as run:
        assert run is not None
        run.checkpoint_metrics({"loss": 3.0})
        run.datasets([DATASET])
        run.text("<html>", "reports/questions.html", "checkpoint")
        assert (run.url, run.checkpoint_url) == ("", "")
    with away.checkpoint("step-9", facts(9)) as run:
        assert run is not None
        run.checkpoint_metrics({"checks_passed": 12})
        run.checkpoint_tags({"lorif.failed_checks": "one"})
    assert away.waiting == 2
    report(tracking, "step-20", 20, 2.5)
    assert tracking.waiting == 0
    (project,) = named(client, tracking, "project")
    assert series(client, project, "loss") == [(9, 3.0), (20, 2.5)]
    late = named(client, tracking, "checkpoint")[0]
    assert late.data.metrics == {"loss": 3.0, "checks_passed": 12.0}
    assert late.data.tags["lorif.failed_checks"] == "one"
    assert [one.dataset.name for one in late.inputs.dataset_inputs] == ["docs"]
    assert [one.path for one in client.list_artifacts(late.info.run_id, "reports")] == ["reports/questions.html"]
    assert [run.info.run_name for run in named(client, tracking, "query_scores")] == [
        "query_scores step-9|questions",
        "query_scores",
    ]


def test_what_was_sent_before_mlflow_went_away_again_is_not_sent_twice(
    away: Tracking, tracking: Tracking, client: "MlflowClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    with away.materialization("step-9", "query_scores", {}, {}, facts=facts(9)) as run:
        assert run is not None
        run.metrics({"first": 1})
        run.text("<html>", "report.html")

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    silences = iter(["", "it went away", "it is away"])
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_text", refuse)
        patch.setattr("lorif_assets.tracking._reason_for_silence", lambda uri: next(silences))
        with tracking.materialization("step-10", "gradient_factors", {}, {}, facts=facts(10)):
            pass
    monkeypatch.setattr("lorif_assets.tracking._silent_since", {})
    assert tracking.waiting == 2
    report(tracking, "step-20", 20, 2.5)
    assert tracking.waiting == 0
    late, _ = named(client, tracking, "query_scores")
    assert late.data.metrics == {"first": 1.0}
    assert [one.path for one in client.list_artifacts(late.info.run_id)] == ["report.html"]


@pytest.mark.parametrize(
    "query_set", ["questions", "q#1", "q?1", "..", "a/b", "Fragen über Öl", "x" * 400, "", " ", "a//b", "."]
)
def test_names_of_query_sets_make_metrics_that_mlflow_takes(
    query_set: str, tracking: Tracking, client: "MlflowClient"
) -> None:
    name = metric_name("loss_per_token", query_set)
    with tracking.checkpoint("step-9", facts(9)) as run:
        assert run is not None
        run.checkpoint_metrics({name: 1.0})
    assert tracking.waiting == 0
    (checkpoint,) = named(client, tracking, "checkpoint")
    assert checkpoint.data.metrics == {name: 1.0}


def test_names_that_mlflow_does_not_take_stay_apart() -> None:
    names = ["a#b", "a?b", "a/b", "a_b", "..", "."]
    assert len({metric_name("loss", name) for name in names}) == len(names)
    assert metric_name("loss", "a_b") == "loss/a_b"


def test_the_commit_of_a_folder_is_that_of_its_repository_and_none_where_there_is_none(tmp_path: Path) -> None:
    assert source_commit(tmp_path / "missing") == ""
    assert source_commit(Path("/")) == ""
