"""A run of MLflow that is open: what one materialization has to tell of itself, of its checkpoint and of the project."""

import json
import logging
import shutil
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lorif_assets.config.secrets import MaskedError
from lorif_assets.progress import LINES
from lorif_assets.tracking.calls import Call, Target, datasets_call, image_call, make_call
from lorif_assets.tracking.facts import CheckpointFacts, TrackedDataset
from lorif_assets.tracking.partition_figures import PartitionFigures, combined_figures, figures_csv
from lorif_assets.tracking.run_tree import Runs

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RECORD_FILE: Final = "run.json"
_BROKEN: Final = 500
_OF_THE_MOMENT: Final = frozenset({401, 403, 408, 429})


@dataclass
class Record:
    """What a run is, and the calls that are left to make, as it is kept while MLflow cannot be told.

    `started` and `ended` are in milliseconds since 1970. One without an asset tells of its checkpoint alone.
    """

    checkpoint: str
    asset: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    started: int
    run_id: str = ""
    calls: list[Call] = field(default_factory=list)
    status: str = ""
    ended: int = 0
    name: str = ""
    facts: CheckpointFacts = field(default_factory=CheckpointFacts)

    @classmethod
    def read(cls, text: str) -> "Record":
        """Return what was kept."""
        values = json.loads(text)
        return cls(**{**values, "facts": CheckpointFacts(**values.get("facts", {}))})

    def write(self, file: Path) -> None:
        """Keep it, whole or not at all: another process may look for what is kept."""
        partial = file.with_name(f".{file.name}")
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(file)


class TrackedRun:
    """A child run that is open: figures and artifacts of one materialization go to it, or to the runs above it."""

    def __init__(
        self,
        client: "MlflowClient | None",
        record: Record,
        runs: Runs | None,
        folder: Path,
        address: str,
        log: logging.Logger,
    ) -> None:
        """Take MLflow, if it can be reached, the runs in it, a folder to keep what it is not told, and its address."""
        self._client, self._record, self._runs, self._folder = client, record, runs, folder
        self._address, self._log = address, log

    @property
    def run_id(self) -> str:
        """MLflow's id of it; empty while MLflow does not know of it."""
        return self._runs.child if self._runs else ""

    @property
    def url(self) -> str:
        """Where a browser finds it in MLflow; empty while MLflow does not know of it."""
        return self._url(self.run_id)

    @property
    def checkpoint_url(self) -> str:
        """Where a browser finds the run of its checkpoint; empty while MLflow does not know of it."""
        return self._url(self._runs.checkpoint if self._runs else "")

    def metrics(self, figures: Mapping[str, float], step: int | None = None) -> None:
        """Log figures of it, at the checkpoint's training step or another number."""
        values = {name: float(value) for name, value in figures.items()}
        self._call({"kind": "metrics", "figures": values, "step": self._step(step), "at": now()})

    def partitions(
        self, figures: PartitionFigures, sums: Collection[str] = (), weights: Mapping[str, str] | None = None
    ) -> None:
        """Log the figures of its partitions together, as `combined_figures`, and of several the table `partitions.csv`."""
        if not figures:
            return
        self.metrics(combined_figures(figures, sums, weights or {}))
        if len(figures) > 1:
            self.text(figures_csv(figures), "partitions.csv")

    def checkpoint_metrics(self, figures: Mapping[str, float]) -> None:
        """Log figures of the checkpoint as it is now, in its run, and by training step in the project's."""
        values = {name: float(value) for name, value in figures.items()}
        step = self._record.facts.step
        call = {"kind": "state", "figures": values, "step": self._step(None), "at": now()}
        self._call({**call, "run": "checkpoint"})
        if step is not None:
            self._call({**call, "run": "project"})

    def checkpoint_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the checkpoint's run."""
        self._call({"kind": "tags", "run": "checkpoint", "tags": dict(tags)})

    def datasets(self, datasets: Sequence[TrackedDataset]) -> None:
        """Log the training data of the checkpoint's run."""
        self._call(datasets_call(datasets, "checkpoint"))

    def text(self, content: str, name: str, target: Target = "child") -> None:
        """Log a text artifact, for instance an HTML page."""
        self._call({"kind": "text", "run": target, "content": content, "name": name})

    def image(self, png: bytes, name: str) -> None:
        """Log a PNG artifact."""
        self._call(image_call(png, name))

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
        self._record.status, self._record.ended = status, now()
        if self._record.asset:
            spent = self._record.ended - self._record.started
            for target in ("checkpoint", "project"):
                self._call({"kind": "spent", "run": target, "status": status, "milliseconds": spent})
        if self._client is not None and self._sent({"kind": "end", "status": status, "at": self._record.ended}):
            return
        with self._keeping():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._record.write(self._folder / RECORD_FILE)

    def _step(self, step: int | None) -> int:
        return (self._record.facts.step or 0) if step is None else step

    def _url(self, run_id: str) -> str:
        if not run_id or self._runs is None:
            return ""
        # By default MLflow's pages take a run for an evaluation of prompts.
        return f"{self._address}/#/experiments/{self._runs.experiment}/runs/{run_id}?workflowType=machine_learning"

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Say what is lost where it cannot be kept."""
        try:
            yield
        except OSError as error:
            say(
                self._log,
                f"what is to be tracked of {self._about} cannot be kept, and is lost: {first_line(error)}",
            )

    @property
    def _about(self) -> str:
        return self._record.asset or self._record.checkpoint

    def _call(self, call: Call) -> None:
        if not self._sent(call):
            self._record.calls.append(call)

    def _sent(self, call: Mapping[str, Any]) -> bool:
        if self._client is None or self._runs is None:
            return False
        try:
            make_call(self._client, self._runs, call, Path())
        except mlflow_errors() as error:
            self._client = None
            say(self._log, f"MLflow did not take {call['kind']} of {self._about}, which are kept: {first_line(error)}")
            return False
        return True


def mlflow_errors() -> tuple[type[Exception], ...]:
    """Return what MLflow raises where a server or database is away or refuses."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, MaskedError


def may_pass(error: Exception) -> bool:
    """Whether what MLflow raised is of the moment, and not of what it was told: it is busy, broken, or asks for a login."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return status >= _BROKEN or status in _OF_THE_MOMENT
    return isinstance(error, SQLAlchemyError | RequestException | ConnectionError | TimeoutError)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def say(log: logging.Logger, text: str) -> None:
    """Warn in a run's log and in the terminal."""
    log.warning(text)
    if log is not LINES:
        LINES.warning(text)


def now() -> int:
    """Return the time in milliseconds since 1970."""
    return int(time.time() * 1_000)
