"""Work for the tests of engines, in a module that workers of a cluster can import."""

import logging
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lorif_assets.compute.shard_work import Worker
from lorif_assets.errors import TableError, UnsoundQueryError


@dataclass(frozen=True)
class Opened:
    """A state that leaves a file for each time that it is opened."""

    folder: Path

    def __call__(self, worker: Worker) -> "State":
        (self.folder / f"opened-{os.getpid()}-{time.monotonic_ns()}").touch()
        return State(worker, self.folder)


@dataclass
class State:
    worker: Worker
    folder: Path

    @property
    def log(self) -> logging.Logger:
        return self.worker.log


@dataclass(frozen=True)
class Doubling:
    """Doubles the numbers of a shard `name:number`; a shard's name says what goes wrong with it."""

    def read(self, state: State, shard: str) -> tuple[str, torch.Tensor]:
        (state.folder / f"read-{shard.partition(':')[0]}-{os.getpid()}").touch()
        name, _, number = shard.partition(":")
        if name == "absent":
            raise TableError("the shard is not there")
        return name, torch.tensor([float(number)])

    def compute(self, state: State, read: tuple[str, torch.Tensor]) -> tuple[str, torch.Tensor]:
        name, numbers = read
        with state.worker.progress(f"doubling {name}", 1, "number") as progress:
            progress.advance(1)
        if name == "unsound":
            raise UnsoundQueryError("the query is not finite", ["q"])
        if name == "mistaken":
            raise KeyError(name)
        if name == "deadly" or (name == "once" and first_time(state.folder / "killed")):
            os.kill(os.getpid(), signal.SIGKILL)
        state.log.warning(f"{name} computed")
        return name, numbers * 2

    def store(self, state: State, computed: tuple[str, torch.Tensor]) -> dict[str, Any]:
        name, numbers = computed
        return {"name": name, "numbers": numbers, "pid": os.getpid()}


@dataclass(frozen=True)
class Lasting(Doubling):
    """The same, taking some time for each shard, with a file for each time that one is begun: by which process, and when."""

    seconds: float

    def read(self, state: State, shard: str) -> tuple[str, torch.Tensor]:
        (state.folder / f"begun-{shard.partition(':')[0]}-{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(self.seconds)
        return super().read(state, shard)


def first_time(marker: Path) -> bool:
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def pid(state: State) -> int:
    del state
    return os.getpid()


def doubled(state: State, number: int) -> int:
    del state
    return 2 * number
