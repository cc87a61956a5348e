"""A project with secrets in its settings, run as Dagster runs it: nobody who may look at Dagster or MLflow finds them."""

import json
import os
import runpy
import threading
import traceback
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.remote_representation.external_data import RepositorySnap
from dagster_shared.serdes import serialize_value

import lorif_assets
from lorif_assets.cli.main import main
from lorif_assets.config.settings import load_settings
from lorif_assets.errors import TableError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake
from lorif_assets.project import Project
from lorif_assets.tracking import Tracking
from resources import dagster_resources
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

SECRETS = ("sesame-of-the-store", "sesame-of-mlflow", "sesame-of-the-hub")
STORE, MLFLOW, HUB = SECRETS
QUERY = """
{ repositoriesOrError { ... on RepositoryConnection { nodes { name
    allTopLevelResourceDetails { name configuredValues { key value type } configFields { name defaultValueAsJson }
      nestedResources { name } resourceType }
    assetNodes { id description metadataEntries { label } requiredResources { resourceKey } }
    jobs { name modes { resources { name configField { defaultValueAsJson configType { key } } } } }
    sensors { name metadata { assetKeys { path } } } } } } }
"""


class _MlflowServer(BaseHTTPRequestHandler):
    """What a client needs of MLflow's server; keeps what it is told."""

    told: list[str]
    logins: list[str]
    address: str
    artifacts: str
    fails = False

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.told.append(f"{self.path} {body}")
        self.logins.append(self.headers.get("Authorization") or "")
        alive = {"experiment_id": "1", "lifecycle_stage": "active"}
        info = {**alive, "run_id": "r", "run_uuid": "r", "status": "RUNNING", "artifact_uri": self.artifacts}
        run = {"run": {"info": info, "data": {}}}
        answers: dict[str, Any] = {
            "experiments/get-by-name": {"experiment": {**alive, "name": "lorif", "artifact_location": self.artifacts}},
            "runs/search": {"runs": []},
            "runs/create": run,
            "runs/get": run,
            "runs/update": {"run_info": info},
        }
        answer = next((answer for path, answer in answers.items() if path in self.path), {})
        content = json.dumps(answer).encode()
        self.send_response(500 if self.fails and "runs/create" in self.path else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, *arguments: Any) -> None:
        """Say nothing on the terminal."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_MlflowServer]]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        # Set by the project; taken back here.
        monkeypatch.setenv(name, "")
    kind = type("Server", (_MlflowServer,), {"told": [], "logins": [], "artifacts": (tmp_path / "artifacts").as_uri()})
    listening = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    kind.address = f"http://me:{MLFLOW}@127.0.0.1:{listening.server_port}"
    yield kind
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def project(recorded_project: TinyProject, server: Any, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    monkeypatch.setenv("STORE_KEY", STORE)
    monkeypatch.setenv("HF_TOKEN", HUB)
    toml = recorded_project.root / "lorif.toml"
    toml.write_text(
        toml.read_text().replace('uri = "none"', f'uri = "{server.address}"')
        + f'[lake.storage_options]\nAWS_SECRET_ACCESS_KEY = {{ env = "STORE_KEY" }}\nAWS_SESSION_TOKEN = "{STORE}"\n'
        + 'AWS_REGION = "eu-somewhere-1"\n'
    )
    settings = load_settings(toml)
    return replace(recorded_project, settings=settings, opened=Project.of(settings))


def tells(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def stored(project: TinyProject) -> str:
    """All that Dagster keeps: events, runs, logs of the processes."""
    folder = project.root / "dagster"
    return "".join(file.read_bytes().decode(errors="replace") for file in folder.rglob("*") if file.is_file())


def test_what_dagster_and_mlflow_keep_of_a_run_has_no_secret(
    project: TinyProject, server: type[_MlflowServer], capfd: pytest.CaptureFixture[str]
) -> None:
    result = project.run("attribution_report", f"{CHECKPOINTS[0]}|{QUERY_SET}")
    assert server.logins[0].startswith("Basic "), "MLflow's client did not log in"
    assert any("runs/create" in request for request in server.told)
    assert tells("".join(server.told)) == []
    assert tells(json.dumps(result.dagster_run.run_config)) == []
    assert "attribution_report" in stored(project)
    assert tells(stored(project)) == []
    assert tells("".join(capfd.readouterr())) == []


def test_a_run_that_mlflow_does_not_take_tells_none_either(
    project: TinyProject, server: type[_MlflowServer], capfd: pytest.CaptureFixture[str]
) -> None:
    server.fails = True
    project.run("attribution_report", f"{CHECKPOINTS[0]}|{QUERY_SET}")
    (kept,) = (project.root / "tracking_queue").glob("*/run.json")
    assert "attribution_report" in kept.read_text()
    assert tells(kept.read_text()) == []
    assert "cannot be reached" in stored(project)
    assert tells(stored(project)) == []
    assert tells("".join(capfd.readouterr())) == []


def test_an_error_that_repeats_a_secret_is_kept_without_it(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: Lake, *arguments: Any) -> None:
        raise OSError(f"PUT https://store.example/?token={STORE} was refused")

    monkeypatch.setattr(Lake, "write_file", refuse)
    with pytest.raises(Exception, match="was refused") as caught:
        project.run("attribution_report", f"{CHECKPOINTS[0]}|{QUERY_SET}")
    assert tells("".join(traceback.format_exception(caught.value))) == []
    assert "was refused" in stored(project)
    assert tells(stored(project)) == []
    assert tells("".join(capfd.readouterr())) == []


def test_graphql_answers_without_a_secret(project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._core.code_pointer import CodePointer  # noqa: F401
    from dagster._core.remote_origin import InProcessCodeLocationOrigin
    from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster_graphql.test.utils import execute_dagster_graphql

    monkeypatch.setenv("LORIF_CONFIG", str(project.root / "lorif.toml"))
    file = project.root / "definitions.py"
    source = Path(str(lorif_assets.__file__)).with_name("definitions.py")
    file.write_text(f"import runpy\ndefs = runpy.run_path({str(source)!r})['defs']\n")
    origin = InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file=str(file), attribute="defs"))
    with WorkspaceProcessContext(project.instance, InProcessTestWorkspaceLoadTarget(origin)) as workspace:
        result = execute_dagster_graphql(workspace.create_request_context(), QUERY)
    assert not result.errors
    answer = json.dumps(result.data)
    assert "eu-somewhere-1" in answer, "what is no secret is shown"
    assert "http://***@127.0.0.1" in answer
    assert tells(answer) == []


def test_what_a_code_location_sends_to_the_web_server_has_no_secret(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORIF_CONFIG", str(project.root / "lorif.toml"))
    source = Path(str(lorif_assets.__file__)).with_name("definitions.py")
    definitions: dg.Definitions = runpy.run_path(str(source))["defs"]
    repository = definitions.get_repository_def()
    assert tells(serialize_value(RepositorySnap.from_def(repository))) == []
    for job in repository.get_all_jobs():
        assert tells(serialize_value(job.get_job_snapshot())) == []


def test_resources_show_no_secret_and_hand_out_what_works(project: TinyProject) -> None:
    faces = dagster_resources(project.opened)
    assert tells("".join(f"{face!r}{face}" for face in faces.values())) == []
    with dg.build_resources({name: face for name, face in faces.items() if name != "settings"}) as opened:
        assert opened.lake == project.lake
        assert opened.tracking == project.opened.tracking
        assert tells(f"{opened.lake!r}{opened.tracking!r}{opened.model_checkpoints!r}") == []


@pytest.mark.parametrize("command", ["doctor", "status"])
def test_commands_print_no_secret(command: str, project: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("LORIF_CONFIG", "")
    result = CliRunner().invoke(main, [command, "--config", str(project.root / "lorif.toml")])
    assert result.exit_code == 0, result.output
    assert tells(result.output) == []
    if command == "doctor":
        assert "http://***@127.0.0.1" in result.output
        assert "`lake.storage_options.AWS_SESSION_TOKEN` is a secret that is written" in " ".join(result.output.split())


def test_a_table_or_registry_that_cannot_be_read_tells_no_secret(
    project: TinyProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(f"options {options}")

    monkeypatch.setattr("deltalake.DeltaTable", refuse)
    with pytest.raises(TableError, match=r"check `lake\.root`") as caught:
        project.lake.table(GRADIENT_FACTORS)
    assert tells("".join(traceback.format_exception(caught.value))) == []
    broken = Tracking(uri=f"oracle://me:{MLFLOW}@db/mlflow", queue=str(tmp_path / "queue"))
    with broken.materialization("step-1", "query_scores", {}, {}):
        pass
    assert "unsupported URI 'oracle://me:***@db/mlflow'" in caplog.text
    assert tells(caplog.text) == []
    assert os.environ["HF_TOKEN"] == HUB
