"""MLflow: a run of the project, one per checkpoint, and a child of that per materialization, with links to Dagster.

Attribution never waits for MLflow. What cannot be sent is kept in a folder, and sent by the next materialization that
reaches the server; until then the run's log and the terminal say so.
"""

import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from lorif_assets.config.secrets import kept_secret, logged_in, secrets_in
from lorif_assets.machine_locks import MachineLock
from lorif_assets.progress import LINES
from lorif_assets.tracking.calls import make_call
from lorif_assets.tracking.facts import CheckpointFacts
from lorif_assets.tracking.run_tree import ASSET_TAG, CHECKPOINT_TAG, DAGSTER_TAG, PARENT_TAG, Runs, RunTree
from lorif_assets.tracking.tracked_run import (
    RECORD_FILE,
    Record,
    TrackedRun,
    first_line,
    may_pass,
    mlflow_errors,
    now,
    say,
)

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_PROBE_SECONDS: Final = 3.0
_AWAY_SECONDS: Final = 30.0
"""How long a server that did not answer is not asked again."""
# By default MLflow tries a request for minutes; these hold unless they are set from outside.
_SHORT_WAITS: Final = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
# Of databases, where the address says none.
_DATABASE_PORTS: Final = {"postgresql": 5432, "postgres": 5432, "mysql": 3306}
_AWAY_CODES: Final = frozenset({502, 503, 504})
_REFUSED: Final = ".refused"
_DATABASES: Final = frozenset({"postgresql", "mysql", "mssql"})
_silent_since: dict[str, float] = {}


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
    address: str = ""
    """Where a browser finds MLflow."""
    artifacts: str = "mlruns"
    """Folder for what runs of a database leave, where that is no file and no server stands before it."""

    @contextmanager
    def materialization(
        self,
        checkpoint: str,
        asset: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        log: logging.Logger = LINES,
        *,
        facts: CheckpointFacts | None = None,
        partitions: Sequence[str] = (),
    ) -> Iterator[TrackedRun | None]:
        """Open a child run of the checkpoint's run; it ends FAILED if the block raises.

        Args:
            checkpoint: name of the checkpoint, whose run is made when first needed, as is the project's.
            asset: the asset that is materialized; the child is named after it and its partitions.
            tags: what identifies the materialization (Dagster run, partition).
            params: the recipe.
            log: of the run, which is told what cannot be sent, as the terminal is.
            facts: about the checkpoint and its project.
            partitions: what is materialized.
        """
        texts = {name: str(value) for name, value in params.items()}
        record = Record(checkpoint, asset, dict(tags), texts, now(), name=_child_name(asset, partitions))
        with self._open(record, facts, log) as run:
            yield run

    @contextmanager
    def checkpoint(
        self, checkpoint: str, facts: CheckpointFacts, log: logging.Logger = LINES
    ) -> Iterator[TrackedRun | None]:
        """Open the checkpoint's own run, to tell what is no materialization's: only what goes to it and to the project's."""
        with self._open(Record(checkpoint, "", {}, {}, now()), facts, log) as run:
            yield run

    @contextmanager
    def _open(self, record: Record, facts: CheckpointFacts | None, log: logging.Logger) -> Iterator[TrackedRun | None]:
        if self.uri is None:
            yield None
            return
        record.facts = facts or CheckpointFacts()
        client, runs = self._opened(record, log)
        run = TrackedRun(client, record, runs, self._place(record.started), self.address, log)
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
    def silence(self) -> str:
        """Why a tracking server does not answer; nothing where it does, or where there is none."""
        return _reason_for_silence(self.uri or "")

    @property
    def _folder(self) -> Path:
        return Path(self.queue or "tracking_queue")

    def _place(self, time: int) -> Path:
        """Return a new folder for what is kept, which is sent in the order of these times."""
        return self._folder / f"{time}-{uuid.uuid4().hex}"

    def _kept(self) -> list[Path]:
        return sorted(file.parent for file in self._folder.glob(f"*/{RECORD_FILE}") if file.parent.suffix != _REFUSED)

    def _opened(self, record: Record, log: logging.Logger) -> "tuple[MlflowClient | None, Runs | None]":
        """Make the run in MLflow, after those that are kept; None where that is not possible now."""
        reason = self.silence
        if not reason:
            try:
                with kept_secret(secrets_in(self.uri or "")):
                    client = self._client()
                    self._catch_up(client, log)
                    runs = self._created(client, record)
            except mlflow_errors() as error:
                reason = first_line(error)
                _silent_since[self.uri or ""] = time.monotonic()
            else:
                return client, runs
        say(
            log,
            f"MLflow at {urlsplit(self.uri or '').hostname or self.uri} cannot be reached ({reason}): attribution goes on, and "
            f"what is to be tracked of {record.asset or record.checkpoint} is kept in {self._folder} until it can",
        )
        return None, None

    def _client(self) -> "MlflowClient":
        # MLflow reports its use to its makers unless this is set before it is imported.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # That it makes the tables of a new database is no news.
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        # A server's address of each run that ends, two lines and a request each time.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        for name, value in _SHORT_WAITS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        # What its database says no to is said here in one line, and not by a traceback.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        return MlflowClient(tracking_uri=logged_in(self.uri or ""))

    def _created(self, client: "MlflowClient", record: Record) -> Runs:
        """Return the runs that a record is about, and make those that MLflow does not have, a child with its parameters."""
        runs = RunTree(client, self.experiment, self.artifact_location).runs(
            record.checkpoint, record.facts, record.started
        )
        if not record.asset:
            return runs
        if record.run_id:
            return replace(runs, child=record.run_id)
        child = client.create_run(
            runs.experiment,
            start_time=record.started,
            run_name=record.name or record.asset,
            tags={
                PARENT_TAG: runs.checkpoint,
                CHECKPOINT_TAG: record.checkpoint,
                ASSET_TAG: record.asset,
                **record.facts.tags,
                **record.tags,
            },
        )
        record.run_id = child.info.run_id
        for name, value in record.params.items():
            client.log_param(record.run_id, name, value)
        return replace(runs, child=record.run_id)

    def _catch_up(self, client: "MlflowClient", log: logging.Logger) -> None:
        """Send what is kept, the oldest first; what MLflow refuses though it answers, or is no record, is put aside.

        What it cannot take at the moment ends that, and is sent by a later run, after all else: it may be what MLflow never
        takes.
        """
        if not self._kept():
            return
        sent = 0
        # Two processes that send the same run would make two.
        with MachineLock("tracking-queue"):
            for folder in self._kept():
                try:
                    self._send(client, folder)
                except mlflow_errors() as error:
                    if self.silence:
                        raise
                    if may_pass(error):
                        say(
                            log,
                            f"MLflow cannot take what was kept now, which is tried again later: {first_line(error)}",
                        )
                        folder.rename(self._place(now()))
                        break
                    _put_aside(folder, "MLflow refuses a run that was kept", error, log)
                except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
                    _put_aside(folder, "a run that was kept cannot be read", error, log)
                else:
                    shutil.rmtree(folder)
                    sent += 1
        if sent:
            say(
                log,
                f"MLflow has now what was kept of {sent} run{'s' if sent > 1 else ''} while it could not be reached",
            )

    def _send(self, client: "MlflowClient", folder: Path) -> None:
        file = folder / RECORD_FILE
        record = Record.read(file.read_text())
        if not record.calls or record.calls[-1]["kind"] != "end":
            record.calls.append({"kind": "end", "status": record.status, "at": record.ended})
        try:
            runs = self._created(client, record)
            while record.calls:
                make_call(client, runs, record.calls[0], folder)
                del record.calls[0]
        except mlflow_errors():
            # What is sent already is not sent again.
            record.write(file)
            raise

    def runs(self) -> list[StoredRun]:
        """Return all child runs of materializations, the newest first; none where nothing is tracked, or was yet."""
        if self.uri is None:
            return []
        with kept_secret(secrets_in(self.uri)):
            return self._stored_runs(self._client())

    def settle(
        self, killed: Collection[str], is_recorded: Callable[[StoredRun], bool], log: logging.Logger = LINES
    ) -> bool:
        """Send what is kept, and end as killed what MLflow shows as running, or as finished, of Dagster runs that were.

        Args:
            killed: the ids of those Dagster runs.
            is_recorded: tells of a finished child whether Dagster has what it computed: it is finished then.
            log: is told what could be sent.

        Returns:
            Whether MLflow could be told.
        """
        if self.uri is None or _reason_for_silence(self.uri):
            return False
        try:
            with kept_secret(secrets_in(self.uri)):
                client = self._client()
                self._catch_up(client, log)
                for dagster_run in killed:
                    for child in self._stored_runs(client, f" AND tags.`{DAGSTER_TAG}` = '{dagster_run}'"):
                        if not child.is_finished or (child.succeeded and not is_recorded(child)):
                            client.set_terminated(child.run_id, "KILLED")
        except mlflow_errors():
            return False
        return True

    def _stored_runs(self, client: "MlflowClient", more: str = "") -> list[StoredRun]:
        experiment = client.get_experiment_by_name(self.experiment)
        found: list[StoredRun] = []
        token = None
        while experiment is not None:
            page = client.search_runs([experiment.experiment_id], f"tags.`{PARENT_TAG}` != ''{more}", page_token=token)
            found += [
                StoredRun(
                    run.info.run_id,
                    run.data.tags.get(ASSET_TAG, ""),
                    run.data.tags[DAGSTER_TAG],
                    run.info.status not in {"RUNNING", "SCHEDULED"},
                    run.info.status == "FINISHED",
                )
                for run in page
                if DAGSTER_TAG in run.data.tags
            ]
            token = page.token
            if not token:
                break
        return found

    @property
    def artifact_location(self) -> str | None:
        """Where artifacts of a database go, for which MLflow would use its working directory; None: a server's choice.

        Beside an SQLite file, else in `artifacts`.
        """
        uri = self.uri or ""
        if uri.startswith("sqlite:///"):
            return (Path(uri.removeprefix("sqlite:///")).absolute().parent / "mlruns").as_uri()
        is_database = urlsplit(uri).scheme.partition("+")[0] in _DATABASES
        return Path(self.artifacts).absolute().as_uri() if is_database else None


def _put_aside(folder: Path, what: str, error: Exception, log: logging.Logger) -> None:
    aside = folder.rename(folder.with_name(f"{folder.name}{_REFUSED}"))
    say(log, f"{what}, which is put aside in {aside}: {first_line(error)}")


def _child_name(asset: str, partitions: Sequence[str]) -> str:
    more = f" and {len(partitions) - 1:,} more" if len(partitions) > 1 else ""
    return f"{asset} {partitions[0]}{more}" if partitions else asset


def _reason_for_silence(uri: str) -> str:
    """Return why a server, of MLflow or of a database, does not answer; nothing where it does, or the URI is that of a file."""
    place = urlsplit(uri)
    try:
        port = place.port or _DATABASE_PORTS.get(place.scheme.partition("+")[0])
    except ValueError:
        # Several servers in one address, of which the driver takes the one that answers.
        return ""
    is_server = place.scheme in {"http", "https"}
    # A driver may be told another host behind the address, or go to a socket of this machine.
    is_elsewhere = "host" in parse_qs(place.query) or place.hostname in {None, "localhost"}
    is_database = place.scheme.partition("+")[0] in _DATABASE_PORTS and port is not None and not is_elsewhere
    if not is_server and not is_database:
        return ""
    if time.monotonic() - _silent_since.get(uri, -_AWAY_SECONDS) < _AWAY_SECONDS:
        return "it did not answer a moment ago"
    reason = _reason_of_server(uri) if is_server else _reason_of_database(str(place.hostname), int(port or 0))
    if reason:
        _silent_since[uri] = time.monotonic()
    return reason


def _reason_of_server(uri: str) -> str:
    import httpx2

    try:
        answer = httpx2.get(f"{uri.rstrip('/')}/health", timeout=_PROBE_SECONDS)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return first_line(error)
    # Whoever answers is there; what stands before a server that is down says so by these.
    return f"it answers {answer.status_code}" if answer.status_code in _AWAY_CODES else ""


def _reason_of_database(host: str, port: int) -> str:
    try:
        with socket.create_connection((host, port), timeout=_PROBE_SECONDS):
            return ""
    except OSError as error:
        return f"{host}, port {port}: {first_line(error)}"
