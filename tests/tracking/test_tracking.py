"""MLflow: one parent run per checkpoint, a child per materialization, figures and artifacts where they belong."""

import json
import logging
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from lorif_assets.api.status import project_status
from lorif_assets.project import Project
from lorif_assets.tracking import Tracking
from lorif_assets.tracking.tracked_run import Record
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

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


@pytest.mark.parametrize("engine", ["postgresql", "postgresql+psycopg2", "mysql+pymysql"])
def test_artifacts_of_a_database_on_a_server_lie_beside_the_settings_wherever_the_process_runs(
    engine: str, tmp_path: Path
) -> None:
    (tmp_path / "lorif.toml").write_text(f'[tracking]\nuri = "{engine}://reader@db/mlflow"\n')
    tracking = Project.open(tmp_path / "lorif.toml").tracking
    assert tracking.artifact_location == (tmp_path / "mlruns").as_uri()


@pytest.mark.parametrize("uri", [None, "http://127.0.0.1:5000", "https://mlflow.example.org", "databricks"])
def test_a_server_of_mlflow_chooses_where_artifacts_lie(uri: str | None) -> None:
    assert Tracking(uri=uri).artifact_location is None


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


# --- Where MLflow cannot be reached ------------------------------------------------------------------------------


@pytest.fixture
def silent_uri(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    monkeypatch.setattr("lorif_assets.tracking._PROBE_SECONDS", 0.2)
    monkeypatch.setattr("lorif_assets.tracking._silent_since", {})
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def tracked(tracking: Tracking, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_bytes(b"12")
    with tracking.materialization("step-1", "gradient_factors", {"dagster.run_id": "abc"}, {"r": 8}) as run:
        assert run is not None
        run.metrics({"loss": 2}, step=3)
        run.text("<html>", "report.html")
        run.image(b"\x89PNG", "spectra.png")
        run.folder(folder, "encoder")


def test_a_server_that_is_away_keeps_nothing_from_being_computed_and_is_caught_up_later(
    silent_uri: str, tracking: Tracking, client: "MlflowClient", tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = replace(tracking, uri=silent_uri, queue=str(tmp_path / "queue"))
    tracked(away, tmp_path / "model")
    assert away.waiting == 1
    assert "MLflow at 127.0.0.1 cannot be reached" in caplog.text
    assert "attribution goes on, and what is to be tracked of gradient_factors is kept in" in caplog.text
    shutil.rmtree(tmp_path / "model")

    back = replace(tracking, queue=away.queue)
    with back.materialization("step-1", "query_scores", {}, {}):
        pass
    assert "MLflow has now what was kept of 1 run while it could not be reached" in caplog.text
    assert back.waiting == 0
    late, _ = children(runs(client, tracking))
    assert (late.info.run_name, late.info.status) == ("gradient_factors", "FINISHED")
    assert late.data.params == {"r": "8"}
    (metric,) = client.get_metric_history(late.info.run_id, "loss")
    assert (metric.step, metric.value) == (3, 2.0)
    assert late.info.start_time <= metric.timestamp <= late.info.end_time
    found = {artifact.path for artifact in client.list_artifacts(late.info.run_id)}
    assert found == {"encoder", "report.html", "spectra.png"}
    assert [artifact.path for artifact in client.list_artifacts(late.info.run_id, "encoder")] == ["encoder/weights"]


def test_what_is_kept_is_sent_where_nothing_more_is_computed(
    silent_uri: str, tracking: Tracking, client: "MlflowClient", tmp_path: Path
) -> None:
    away = replace(tracking, uri=silent_uri, queue=str(tmp_path / "queue"))
    tracked(away, tmp_path / "model")
    assert not away.settle((), lambda _child: True)
    assert away.waiting == 1
    assert replace(away, uri=tracking.uri).settle((), lambda _child: True)
    assert away.waiting == 0
    (late,) = children(runs(client, tracking))
    assert (late.info.run_name, late.info.status) == ("gradient_factors", "FINISHED")


def test_of_a_dagster_run_that_was_killed_what_runs_or_was_never_recorded_is_killed(
    tracking: Tracking, client: "MlflowClient"
) -> None:
    for dagster_run in ("killed", "alive"):
        for asset in ("finished", "unrecorded", "running"):
            with tracking.materialization("step-1", asset, {"dagster.run_id": dagster_run}, {}):
                pass
    for child in children(runs(client, tracking)):
        if child.info.run_name == "running":
            client.update_run(child.info.run_id, status="RUNNING")
    assert tracking.settle(["killed"], lambda child: child.asset == "finished")
    found = {
        (child.data.tags["dagster.run_id"], child.info.run_name): child.info.status
        for child in children(runs(client, tracking))
    }
    assert found == {
        ("killed", "finished"): "FINISHED",
        ("killed", "unrecorded"): "KILLED",
        ("killed", "running"): "KILLED",
        ("alive", "finished"): "FINISHED",
        ("alive", "unrecorded"): "FINISHED",
        ("alive", "running"): "RUNNING",
    }


def test_mlflow_prints_no_traceback_of_its_database_and_no_address_of_each_run(
    tracking: Tracking, capfd: pytest.CaptureFixture[str]
) -> None:
    with tracking.materialization("step-1", "gradient_factors", {}, {}):
        logging.getLogger("mlflow.store.db.utils").exception("a database error")
    from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT

    assert MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get()
    assert "a database error" not in capfd.readouterr().err


def test_what_fails_while_a_server_is_away_is_failed_when_it_is_caught_up(
    silent_uri: str, tracking: Tracking, client: "MlflowClient", tmp_path: Path
) -> None:
    away = replace(tracking, uri=silent_uri, queue=str(tmp_path / "queue"))
    with pytest.raises(ValueError, match="no"), away.materialization("step-1", "gradient_factors", {}, {}):
        raise ValueError("no")
    with replace(away, uri=tracking.uri).materialization("step-1", "query_scores", {}, {}):
        pass
    assert {run.info.run_name: run.info.status for run in children(runs(client, tracking))} == {
        "gradient_factors": "FAILED",
        "query_scores": "FINISHED",
    }


def test_a_server_that_goes_away_in_between_is_told_the_rest_of_the_same_run_later(
    tracking: Tracking, client: "MlflowClient", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("gone")

    kept = replace(tracking, queue=str(tmp_path / "queue"))
    with kept.materialization("step-1", "gradient_factors", {}, {}) as run:
        assert run is not None
        run.metrics({"loss": 2})
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "log_metric", refuse)
            run.metrics({"loss": 1}, step=1)
        run.metrics({"loss": 0}, step=2)
    assert kept.waiting == 1
    with kept.materialization("step-1", "query_scores", {}, {}):
        pass
    assert [m.value for m in client.get_metric_history(run.run_id, "loss")] == [2.0, 1.0, 0.0]
    assert {child.info.status for child in children(runs(client, tracking))} == {"FINISHED"}


def test_a_run_that_is_refused_by_a_server_that_answers_is_put_aside_and_holds_nothing_up(
    tracking: Tracking, client: "MlflowClient", tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = replace(tracking, queue=str(tmp_path / "queue"))
    with kept.materialization("step-1", "gradient_factors", {}, {}) as run:
        assert run is not None
        run.metrics({"a name that MLflow does not take: ?": 1})
    with kept.materialization("step-1", "query_scores", {}, {}):
        pass
    assert "MLflow refuses a run that was kept, which is put aside in" in caplog.text
    assert kept.waiting == 0
    assert children(runs(client, tracking))[-1].info.status == "FINISHED"


@pytest.mark.parametrize("code", ["TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED"])
def test_what_mlflow_cannot_take_at_the_moment_is_kept_and_holds_nothing_up(
    code: str,
    tracking: Tracking,
    client: "MlflowClient",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A database that is locked, a server that fails or wants another login."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos import databricks_pb2
    from mlflow.tracking import MlflowClient

    def busy(*_: object, **__: object) -> None:
        raise MlflowException("database is locked", getattr(databricks_pb2, code))

    kept = replace(tracking, experiment=f"{tracking.experiment}-{code}", queue=str(tmp_path / "queue"))
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_metric", busy)
        with kept.materialization("step-1", "gradient_factors", {}, {}) as run:
            assert run is not None
            run.metrics({"loss": 2})
        with kept.materialization("step-1", "query_scores", {}, {}):
            pass
    assert "MLflow cannot take what was kept now, which is tried again later: database is locked" in caplog.text
    assert kept.waiting == 1
    with kept.materialization("step-1", "attribution_report", {}, {}):
        pass
    assert kept.waiting == 0
    assert [m.value for m in client.get_metric_history(run.run_id, "loss")] == [2.0]
    assert {child.info.status for child in children(runs(client, kept))} == {"FINISHED"}


def test_what_mlflow_fails_on_each_time_holds_no_other_run_up(
    tracking: Tracking, client: "MlflowClient", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos import databricks_pb2
    from mlflow.tracking import MlflowClient

    log_metric = MlflowClient.log_metric

    def fails_on_odd_ones(self: MlflowClient, run_id: str, key: str, *args: Any, **kwargs: Any) -> None:
        if key == "odd":
            raise MlflowException("no", databricks_pb2.INTERNAL_ERROR)
        log_metric(self, run_id, key, *args, **kwargs)

    kept = replace(tracking, experiment="poisoned queue", queue=str(tmp_path / "queue"))
    with monkeypatch.context() as patch:
        patch.setattr("lorif_assets.tracking._reason_for_silence", lambda _: "it is away")
        for name in ("odd", "even"):
            with kept.materialization("step-1", name, {}, {}) as run:
                assert run is not None
                run.metrics({name: 1})
    monkeypatch.setattr(MlflowClient, "log_metric", fails_on_odd_ones)
    for _ in range(2):
        with kept.materialization("step-1", "query_scores", {}, {}):
            pass
    assert kept.waiting == 1
    assert {run.info.run_name: run.info.status for run in children(runs(client, kept))}["even"] == "FINISHED"


ODD_CALL = json.dumps({**asdict(Record("step-1", "query_scores", {}, {}, 1)), "calls": [{"kjnd": "end"}]}).encode()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"checkpoint": 1}', b"\xff", ODD_CALL])
def test_a_record_that_a_disk_damaged_is_put_aside_and_stops_nothing(
    content: bytes, tracking: Tracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = replace(tracking, experiment="damaged record", queue=str(tmp_path / "queue"))
    (tmp_path / "queue/1-a").mkdir(parents=True)
    (tmp_path / "queue/1-a/run.json").write_bytes(content)
    with kept.materialization("step-1", "query_scores", {}, {}):
        pass
    assert "a run that was kept cannot be read, which is put aside in" in caplog.text
    assert kept.waiting == 0


ANSWERS = {
    "a page": (200, b"<html>Sign in</html>"),
    "an empty object": (200, b"{}"),
    "no login": (401, b"Unauthorized"),
    "a failure": (500, b'{"error_code": "INTERNAL_ERROR", "message": "no"}'),
    "a failure in HTML": (500, b"<html>no</html>"),
    "another program": (404, b"not found"),
}


@pytest.fixture
def odd_uri(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that gives one answer to everything."""
    status, content = ANSWERS[request.param]

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr("lorif_assets.tracking._silent_since", {})
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("odd_uri", ANSWERS, indirect=True)
def test_a_server_that_answers_oddly_keeps_nothing_from_being_computed(
    odd_uri: str, tracking: Tracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    odd = replace(tracking, uri=odd_uri, queue=str(tmp_path / "queue"))
    tracked(odd, tmp_path / "model")
    assert odd.waiting == 1
    assert "attribution goes on, and what is to be tracked of gradient_factors is kept in" in caplog.text


def test_waits_are_short_unless_they_are_set_from_outside(tracking: Tracking, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv(names[0], "77")
    with tracking.materialization("step-1", "query_scores", {}, {}):
        assert [os.environ[name] for name in names] == ["77", "1", "1"]


def test_where_nothing_can_be_kept_what_is_lost_is_said(
    silent_uri: str, tracking: Tracking, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a file").write_bytes(b"")
    tracked(replace(tracking, uri=silent_uri, queue=str(tmp_path / "a file/queue")), tmp_path / "model")
    assert "what is to be tracked of gradient_factors cannot be kept, and is lost" in caplog.text


def test_attribution_goes_on_while_the_server_of_the_settings_is_away(
    silent_uri: str, private_project: TinyProject
) -> None:
    project = private_project.with_settings(tracking={"uri": silent_uri})
    result = project.run("query_scores", f"{CHECKPOINTS[0]}|{QUERY_SET}")
    assert result.success
    assert project.opened.tracking.waiting == 1
    assert project_status(project.opened).notes == (
        f"1 runs wait in {project.root}/tracking_queue until MLflow can be reached",
    )
