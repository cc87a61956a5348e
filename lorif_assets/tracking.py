"""MLflow: one parent run per checkpoint, a child run per materialization, tagged so that either leads to the other.

Attribution never waits for MLflow. What cannot be sent is kept in a folder, and sent by the next materialization that
reaches the server; until then the run's log and the terminal say so.
"""

import base64
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from lorif_assets.config.secrets import MaskedError, kept_secret, logged_in, secrets_in
from lorif_assets.errors import SettingsError
from lorif_assets.machine_locks import MachineLock
from lorif_assets.progress import LINES

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_CHECKPOINT_TAG = "lorif.checkpoint"
_ASSET_TAG = "lorif.asset"
_DAGSTER_TAG = "dagster.run_id"
# MLflow's name for the tag that makes a run another's child in its user interface.
_PARENT_TAG = "mlflow.parentRunId"
_PROBE_SECONDS: Final = 3.0
_AWAY_SECONDS: Final = 30.0
"""How long a server that did not answer is not asked again."""
# By default MLflow tries a request for minutes; these hold unless they are set from outside.
_SHORT_WAITS: Final = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
_AWAY_CODES: Final = frozenset({502, 503, 504})
_REFUSED: Final = ".refused"
_RECORD: Final = "run.json"
_silent_since: dict[str, float] = {}


@dataclass
class _Record:
    """A run as it is kept while it cannot be sent: what it is, and the calls that are left to make."""

    checkpoint: str
    asset: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    started: int
    run_id: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    status: str = ""
    ended: int = 0


class TrackedRun:
    """A child run that is open: figures and artifacts of one materialization go to it."""

    def __init__(self, client: "MlflowClient | None", record: _Record, folder: Path, log: logging.Logger) -> None:
        self._client, self._record, self._folder, self._log = client, record, folder, log

    @property
    def run_id(self) -> str:
        """MLflow's id of it; empty while MLflow does not know of it."""
        return self._record.run_id

    def metrics(self, figures: Mapping[str, float], step: int = 0) -> None:
        """Log figures."""
        values = {name: float(value) for name, value in figures.items()}
        self._call({"kind": "metrics", "figures": values, "step": step, "at": _now()})

    def text(self, content: str, name: str) -> None:
        """Log a text artifact, for instance an HTML page."""
        self._call({"kind": "text", "content": content, "name": name})

    def image(self, png: bytes, name: str) -> None:
        """Log a PNG artifact."""
        self._call({"kind": "image", "png": base64.b64encode(png).decode(), "name": name})

    def folder(self, path: Path, name: str) -> None:
        """Log a folder of artifacts, for instance an MLflow model."""
        call = {"kind": "folder", "path": str(path), "name": name}
        if not self._sent(call):
            copy = self._folder / uuid.uuid4().hex
            with self._keeping():
                shutil.copytree(path, copy)
                self._record.calls.append({**call, "path": copy.name})

    def end(self, status: str) -> None:
        """End it, and keep what could not be sent."""
        self._record.status, self._record.ended = status, _now()
        if self._client is not None and self._sent({"kind": "end", "status": status, "at": self._record.ended}):
            return
        with self._keeping():
            self._folder.mkdir(parents=True, exist_ok=True)
            # Whole or not at all: another process may look for what is kept.
            partial = self._folder / f".{_RECORD}"
            partial.write_text(json.dumps(asdict(self._record)))
            partial.replace(self._folder / _RECORD)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Say what is lost where it cannot be kept."""
        try:
            yield
        except OSError as error:
            _say(
                self._log, f"what is to be tracked of {self._record.asset} cannot be kept, and is lost: {_first(error)}"
            )

    def _call(self, call: dict[str, Any]) -> None:
        if not self._sent(call):
            self._record.calls.append(call)

    def _sent(self, call: dict[str, Any]) -> bool:
        if self._client is None:
            return False
        try:
            _make(self._client, self._record.run_id, call, Path())
        except _errors() as error:
            self._client = None
            _say(
                self._log,
                f"MLflow did not take {call['kind']} of {self._record.asset}, which are kept: {_first(error)}",
            )
            return False
        return True


@dataclass(frozen=True)
class StoredRun:
    """A child run as MLflow has it: the asset and the Dagster run that it is of, and whether it is over, and well."""

    run_id: str
    asset: str
    dagster_run: str
    is_finished: bool
    succeeded: bool


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """An MLflow experiment at a tracking URI; without a URI nothing is tracked."""

    uri: str | None = field(default=None, repr=False)
    experiment: str = "lorif"
    queue: str = ""
    """Folder that keeps what could not be sent; default: one in the working directory."""

    @contextmanager
    def materialization(
        self,
        checkpoint: str,
        asset: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        log: logging.Logger = LINES,
    ) -> Iterator[TrackedRun | None]:
        """Open a child run of the checkpoint's run; it ends FAILED if the block raises.

        Args:
            checkpoint: name of the checkpoint, whose parent run is made when first needed.
            asset: the asset that is materialized; the child's name.
            tags: what identifies the materialization (Dagster run, partition).
            params: the recipe.
            log: of the run, which is told what cannot be sent, as the terminal is.
        """
        if self.uri is None:
            yield None
            return
        texts = {name: str(value) for name, value in params.items()}
        record = _Record(checkpoint, asset, dict(tags), texts, _now())
        client = self._opened(record, log)
        run = TrackedRun(client, record, self._folder / f"{record.started}-{uuid.uuid4().hex}", log)
        try:
            yield run
        except BaseException:
            run.end("FAILED")
            raise
        run.end("FINISHED")

    @property
    def waiting(self) -> int:
        """How many runs are kept until MLflow can be reached."""
        return len(self._kept()) if self.uri else 0

    @property
    def _folder(self) -> Path:
        return Path(self.queue or "tracking_queue")

    def _kept(self) -> list[Path]:
        return sorted(file.parent for file in self._folder.glob(f"*/{_RECORD}") if file.parent.suffix != _REFUSED)

    def _opened(self, record: _Record, log: logging.Logger) -> "MlflowClient | None":
        """Make the run in MLflow, after those that are kept; None where that is not possible now."""
        reason = _reason_for_silence(self.uri or "")
        if not reason:
            try:
                with kept_secret(secrets_in(self.uri or "")):
                    client = self._client()
                    self._catch_up(client, log)
                    record.run_id = self._created(client, record)
            except _errors() as error:
                reason = _first(error)
                _silent_since[self.uri or ""] = time.monotonic()
            else:
                return client
        _say(
            log,
            f"MLflow at {urlsplit(self.uri or '').hostname or self.uri} cannot be reached ({reason}): attribution goes on, and "
            f"what is to be tracked of {record.asset} is kept in {self._folder} until it can",
        )
        return None

    def _client(self) -> "MlflowClient":
        # MLflow reports its use to its makers unless this is set before it is imported.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for name, value in _SHORT_WAITS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=logged_in(self.uri or ""))

    def _created(self, client: "MlflowClient", record: _Record) -> str:
        """Make a child run with its parameters, and return its id."""
        experiment_id, parent = self._parent(client, record.checkpoint)
        child = client.create_run(
            experiment_id,
            start_time=record.started,
            run_name=record.asset,
            tags={
                _PARENT_TAG: parent,
                _CHECKPOINT_TAG: record.checkpoint,
                _ASSET_TAG: record.asset,
                **record.tags,
            },
        )
        run_id: str = child.info.run_id
        for name, value in record.params.items():
            client.log_param(run_id, name, value)
        return run_id

    def _catch_up(self, client: "MlflowClient", log: logging.Logger) -> None:
        """Send what is kept, the oldest first; what MLflow refuses though it answers is put aside."""
        if not self._kept():
            return
        sent = 0
        # Two processes that send the same run would make two.
        with MachineLock("tracking-queue"):
            for folder in self._kept():
                try:
                    self._send(client, folder)
                except _errors() as error:
                    if _reason_for_silence(self.uri or ""):
                        raise
                    aside = folder.rename(folder.with_name(f"{folder.name}{_REFUSED}"))
                    _say(log, f"MLflow refuses a run that was kept, which is put aside in {aside}: {_first(error)}")
                else:
                    shutil.rmtree(folder)
                    sent += 1
        if sent:
            _say(
                log,
                f"MLflow has now what was kept of {sent} run{'s' if sent > 1 else ''} while it could not be reached",
            )

    def _send(self, client: "MlflowClient", folder: Path) -> None:
        record = _Record(**json.loads((folder / _RECORD).read_text()))
        run_id = record.run_id or self._created(client, record)
        for call in (*record.calls, {"kind": "end", "status": record.status, "at": record.ended}):
            _make(client, run_id, call, folder)

    def runs(self) -> list[StoredRun]:
        """Return all child runs of materializations, the newest first; none where nothing is tracked, or was yet."""
        if self.uri is None:
            return []
        with kept_secret(secrets_in(self.uri)):
            return self._stored_runs(self._client())

    def _stored_runs(self, client: "MlflowClient") -> list[StoredRun]:
        experiment = client.get_experiment_by_name(self.experiment)
        found: list[StoredRun] = []
        token = None
        while experiment is not None:
            page = client.search_runs([experiment.experiment_id], f"tags.`{_PARENT_TAG}` != ''", page_token=token)
            found += [
                StoredRun(
                    run.info.run_id,
                    run.data.tags.get(_ASSET_TAG, ""),
                    run.data.tags[_DAGSTER_TAG],
                    run.info.status not in {"RUNNING", "SCHEDULED"},
                    run.info.status == "FINISHED",
                )
                for run in page
                if _DAGSTER_TAG in run.data.tags
            ]
            token = page.token
            if not token:
                break
        return found

    @property
    def _artifact_location(self) -> str | None:
        """Beside an SQLite file, where MLflow would use its working directory; None, the server's choice, otherwise."""
        file = (self.uri or "").removeprefix("sqlite:///")
        return None if file == self.uri else (Path(file).absolute().parent / "mlruns").as_uri()

    def _parent(self, client: "MlflowClient", checkpoint: str) -> tuple[str, str]:
        # Two processes that both find no parent would make two.
        with MachineLock("tracking"):
            experiment = client.get_experiment_by_name(self.experiment)
            if experiment and experiment.lifecycle_stage != "active":
                raise SettingsError(
                    f"the MLflow experiment {self.experiment!r} was deleted: restore it (`mlflow experiments restore "
                    f"--experiment-id {experiment.experiment_id}`), or set `tracking.experiment` to another name"
                )
            experiment_id = (
                experiment.experiment_id
                if experiment
                else client.create_experiment(self.experiment, artifact_location=self._artifact_location)
            )
            name = checkpoint.replace("'", "\\'")
            found = client.search_runs(
                [experiment_id],
                f"tags.`{_CHECKPOINT_TAG}` = '{name}' and tags.`{_ASSET_TAG}` = 'checkpoint'",
                max_results=1,
            )
            if found:
                return experiment_id, found[0].info.run_id
            parent = client.create_run(
                experiment_id, run_name=checkpoint, tags={_CHECKPOINT_TAG: checkpoint, _ASSET_TAG: "checkpoint"}
            )
            client.set_terminated(parent.info.run_id, "FINISHED")
            return experiment_id, parent.info.run_id


def _make(client: "MlflowClient", run_id: str, call: Mapping[str, Any], folder: Path) -> None:
    """Make one call; paths are relative to a folder."""
    match call["kind"]:
        case "metrics":
            for name, value in call["figures"].items():
                client.log_metric(run_id, name, value, timestamp=call["at"], step=call["step"])
        case "text":
            client.log_text(run_id, call["content"], call["name"])
        case "image":
            with tempfile.TemporaryDirectory() as temporary:
                file = Path(temporary, call["name"])
                file.write_bytes(base64.b64decode(call["png"]))
                client.log_artifact(run_id, str(file))
        case "folder":
            client.log_artifacts(run_id, str(folder / call["path"]), call["name"])
        case "end":
            client.set_terminated(run_id, call["status"], call["at"])


def _reason_for_silence(uri: str) -> str:
    """Return why a tracking server does not answer; nothing where it does, or where the URI is that of a file."""
    if urlsplit(uri).scheme not in {"http", "https"}:
        return ""
    import httpx2

    if time.monotonic() - _silent_since.get(uri, -_AWAY_SECONDS) < _AWAY_SECONDS:
        return "it did not answer a moment ago"
    try:
        answer = httpx2.get(f"{uri.rstrip('/')}/health", timeout=_PROBE_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        reason = _first(error)
    else:
        # Whoever answers is there; what stands before a server that is down says so by these.
        reason = f"it answers {answer.status_code}" if answer.status_code in _AWAY_CODES else ""
    if reason:
        _silent_since[uri] = time.monotonic()
    return reason


def _errors() -> tuple[type[Exception], ...]:
    """Return what MLflow raises where a server or database is away or refuses."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, MaskedError


def _first(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _say(log: logging.Logger, text: str) -> None:
    log.warning(text)
    if log is not LINES:
        LINES.warning(text)


def _now() -> int:
    return int(time.time() * 1_000)
