"""MLflow: one parent run per checkpoint, a child per materialization, figures and artifacts where they belong."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lorif_assets.tracking import Tracking

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


@pytest.fixture
def tracking(mlflow_uri: str, request: pytest.FixtureRequest) -> Tracking:
    return Tracking(uri=mlflow_uri, experiment=request.node.name)


@pytest.fixture
def client(mlflow_uri: str) -> "Iterator[MlflowClient]":
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=mlflow_uri)


def runs(client: "MlflowClient", tracking: Tracking) -> "list[Run]":
    experiment = client.get_experiment_by_name(tracking.experiment)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def parents(found: "list[Run]") -> "list[Run]":
    return [run for run in found if "mlflow.parentRunId" not in run.data.tags]


def children(found: "list[Run]") -> "list[Run]":
    return [run for run in found if "mlflow.parentRunId" in run.data.tags]


def test_without_a_uri_nothing_is_tracked_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Tracking(uri=None).materialization("step-1", "query_scores", {}, {}) as run:
        assert run is None
    assert not list(tmp_path.iterdir())


def test_materializations_of_a_checkpoint_are_children_of_its_one_run(
    tracking: Tracking, client: "MlflowClient"
) -> None:
    for checkpoint, asset in (
        ("step-1", "gradient_factors"),
        ("step-1", "query_scores"),
        ("my-model:7", "query_scores"),
    ):
        with tracking.materialization(checkpoint, asset, {"dagster.run_id": "abc"}, {"r": 8}):
            pass
    found = runs(client, tracking)
    names = {parent.info.run_id: parent.info.run_name for parent in parents(found)}
    assert sorted(names.values()) == ["my-model:7", "step-1"]
    assert {parent.info.status for parent in parents(found)} == {"FINISHED"}
    assert sorted((names[c.data.tags["mlflow.parentRunId"]], c.info.run_name) for c in children(found)) == [
        ("my-model:7", "query_scores"),
        ("step-1", "gradient_factors"),
        ("step-1", "query_scores"),
    ]


def test_a_child_carries_tags_parameters_figures_and_artifacts(
    tracking: Tracking, client: "MlflowClient", tmp_path: Path
) -> None:
    tags, params = {"dagster.run_id": "abc", "dagster.partition": "step-1|docs-0"}, {"r": 8, "include_layers": ("a",)}
    with tracking.materialization("step-1", "gradient_factors", tags, params) as run:
        assert run is not None
        run.metrics({"loss": 2, "tokens": 7.5})
        run.metrics({"loss": 1}, step=1)
        run.text("<html>", "report.html")
        run.image(b"\x89PNG", "spectra.png")
    (child,) = children(runs(client, tracking))
    assert child.info.status == "FINISHED"
    expected = {**tags, "lorif.checkpoint": "step-1", "lorif.asset": "gradient_factors"}
    assert expected.items() <= child.data.tags.items()
    assert child.data.params == {"r": "8", "include_layers": "('a',)"}
    assert [(m.step, m.value) for m in client.get_metric_history(child.info.run_id, "loss")] == [(0, 2.0), (1, 1.0)]
    assert {artifact.path for artifact in client.list_artifacts(child.info.run_id)} == {"report.html", "spectra.png"}
    report = client.download_artifacts(child.info.run_id, "report.html", str(tmp_path))
    assert Path(report).read_text() == "<html>"


def test_artifacts_lie_beside_the_database_wherever_the_process_runs(
    tracking: Tracking, mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with tracking.materialization("step-1", "attribution_report", {}, {}) as run:
        assert run is not None
        run.text("<html>", "report.html")
    assert not list(tmp_path.rglob("report.html"))
    database = Path(mlflow_uri.removeprefix("sqlite:///"))
    assert (database.parent / "mlruns" / run.run_id / "artifacts/report.html").is_file()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_materialization_that_raises_ends_as_failed(
    tracking: Tracking, client: "MlflowClient", error: type[BaseException]
) -> None:
    with pytest.raises(error), tracking.materialization("step-1", "gradient_factors", {}, {}):
        raise error
    (child,) = children(runs(client, tracking))
    assert child.info.status == "FAILED"
