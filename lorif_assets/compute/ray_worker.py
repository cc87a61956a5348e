"""A worker of the engine `ray`: an actor that holds a state, works at one shard at a time, and tells how it gets on.

The module is imported on machines of the cluster; everything that it takes and returns is pickled.
"""

import logging
import os
import socket
import time
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lorif_assets.compute.shard_work import Opening, ShardWork, Worker
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.process_environment import set_process_environment
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch

_KEPT_LINES = 1_000
_PROJECT = "lorif_assets"
REPORTS = "report"
"""Ray's name for the thread that reports while a shard is computed."""


@dataclass(frozen=True)
class Place:
    """Where a worker is."""

    node: str
    pid: int
    devices: str

    def __str__(self) -> str:
        return f"process {self.pid} on the node {self.node}"


@dataclass(frozen=True)
class Reply:
    """What became of a shard: what its work returned, or the error, with the worker's traceback, that stopped it."""

    value: Any = None
    error: Exception | None = None
    traceback: str = ""
    is_open: bool = True
    """Whether the worker's state could be opened; what keeps one worker's from it keeps those of all."""


@dataclass(frozen=True)
class Report:
    """Lines (level, text) logged since the last report; units counted so far, and the seconds of work that they took."""

    lines: list[tuple[int, str]]
    counts: Mapping[str, int]
    seconds: float


@dataclass
class _Meter:
    counts: dict[str, int] = field(default_factory=dict)
    busy_seconds: float = 0.0
    started: float | None = None

    def add(self, unit: str, units: int) -> None:
        self.counts[unit] = self.counts.get(unit, 0) + units

    @property
    def seconds(self) -> float:
        started = self.started
        return self.busy_seconds + (time.monotonic() - started if started is not None else 0.0)


class _MeteredProgress(Progress):
    """Progress whose units are counted for the worker, too."""

    def __init__(self, label: str, total: int, unit: str, log: logging.Logger, meter: _Meter) -> None:
        super().__init__(label, total, unit, log)
        self._unit_name, self._meter = unit, meter

    def advance(self, units: int) -> None:
        """Count finished units."""
        self._meter.add(self._unit_name, units)
        super().advance(units)


class _KeptLines(logging.Handler):
    """Keeps the newest lines until somebody fetches them."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: deque[tuple[int, str]] = deque(maxlen=_KEPT_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelno, record.getMessage()))

    def fetched(self) -> list[tuple[int, str]]:
        found = []
        while self.lines:
            found.append(self.lines.popleft())
        return found


class RayWorker:
    """The actor. `run` and `report` are called from two threads."""

    def __init__(self, opening: Opening[Any], devices: int) -> None:
        set_process_environment()
        register_tensors()
        self._opening = opening
        self._state: Any = None
        self._work: tuple[int, ShardWork[Any]] | None = None
        self._meter = _Meter()
        self._kept = _KeptLines(logging.INFO)
        self._warnings = _KeptLines(logging.WARNING)
        log = logging.getLogger(f"{_PROJECT}.worker")
        log.setLevel(logging.INFO)
        log.propagate = False
        log.addHandler(self._kept)
        # Of the rest of the project only what a person should know.
        logging.getLogger(_PROJECT).addHandler(self._warnings)
        group = DeviceGroup.of(*(f"cuda:{index}" for index in range(devices))) if devices else DeviceGroup.of("cpu")
        self._worker = Worker(
            group,
            log,
            lambda label, total, unit: _MeteredProgress(label, total, unit, log, self._meter),
            is_remote=True,
        )

    def place(self) -> Place:
        """Return where the worker is; the answer says that it is ready."""
        import ray

        return Place(ray.util.get_node_ip_address(), os.getpid(), f"{self._worker.devices} of {socket.gethostname()}")

    def run(self, number: int, work: list[Any], shard: Any) -> Reply:
        """Do the work for one shard.

        Args:
            number: of the work, which is fetched once.
            work: a reference to it, in a list, so that it is not fetched with each shard.
            shard: what to do it for.
        """
        import ray

        self._meter.started = time.monotonic()
        try:
            if self._work is None or self._work[0] != number:
                self._work = number, ray.get(work[0])
            if self._state is None:
                self._state = self._opening(self._worker)
            chosen, state = self._work[1], self._state
            return Reply(chosen.store(state, chosen.compute(state, chosen.read(state, shard))))
        except Exception as error:
            return Reply(None, _portable(error), traceback.format_exc(), self._state is not None)
        finally:
            self._meter.busy_seconds, self._meter.started = self._meter.seconds, None

    def report(self) -> Report:
        """Return what happened since the last report."""
        return Report([*self._kept.fetched(), *self._warnings.fetched()], dict(self._meter.counts), self._meter.seconds)

    # As `ray.method` sets it: this module is imported without Ray too, and ray:// takes the thread from here alone.
    report.__ray_concurrency_group__ = REPORTS  # type: ignore[attr-defined]


def register_tensors() -> None:
    """Have tensors of any device sent as arrays: whoever receives one has it on the CPU."""
    import ray
    import torch

    ray.util.register_serializer(torch.Tensor, serializer=_packed, deserializer=_unpacked)


def _packed(tensor: "torch.Tensor") -> Any:
    import torch

    plain = tensor.detach().cpu().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy(), plain.dtype, tuple(plain.shape)


def _unpacked(packed: Any) -> "torch.Tensor":
    import torch

    data, dtype, shape = packed
    if not data.size:
        return torch.empty(shape, dtype=dtype)
    # A copy: what lies in the object store cannot be written to.
    return torch.from_numpy(data.copy()).view(dtype).reshape(shape)


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent: a RuntimeError in place of one that cannot be pickled."""
    from ray import cloudpickle

    try:
        cloudpickle.loads(cloudpickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
