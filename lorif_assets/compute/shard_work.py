"""What an engine and the work that it hands out know of each other.

The work is picklable, and so are shards and results: an engine may send them to another machine. What takes long to load is
a worker's state, which the worker opens once.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress

State = TypeVar("State")
State_co = TypeVar("State_co", covariant=True)
State_contra = TypeVar("State_contra", contravariant=True)
Committed = TypeVar("Committed")
Shard = TypeVar("Shard")

ProgressOf = Callable[[str, int, str], Progress]
"""Returns the progress of some work from its label, its total and its unit."""


@dataclass(frozen=True)
class Worker:
    """Where work runs: its devices, and the log and the progress that reach the run's log from there."""

    devices: DeviceGroup
    log: logging.Logger
    progress: ProgressOf
    is_remote: bool = False
    """Whether what it returns goes to another process: rows are then better written here, and committed there."""


Opening = Callable[[Worker], State]
"""Opens a worker's state. It is called once per worker, in the process that works."""


class ShardWork(Protocol[State_contra]):
    """What is done for each shard, in three steps, so that a shard can be read or stored while another is computed."""

    def read(self, state: State_contra, shard: Any) -> Any:
        """Return what `compute` takes: no device is used for it."""
        ...

    def compute(self, state: State_contra, read: Any) -> Any:
        """Return what `store` takes."""
        ...

    def store(self, state: State_contra, computed: Any) -> Any:
        """Write the files that no row points to yet, and return what is to be committed: small, or arrays on the CPU."""
        ...


@dataclass(frozen=True)
class Step:
    """Work of one step: a function of the worker's state, the shard, and arguments that are the same for all shards."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()

    def read(self, state: Any, shard: Any) -> Any:
        """Return the shard."""
        del state
        return shard

    def compute(self, state: Any, read: Any) -> Any:
        """Call the function."""
        return self.function(state, read, *self.arguments)

    def store(self, state: Any, computed: Any) -> Any:
        """Return what the function returned."""
        del state
        return computed


class Workers(Protocol[State_co]):
    """Workers that hold a state each, from their first shard on until they are closed."""

    @property
    def parts(self) -> int:
        """Into how many parts to cut what can be cut at will."""
        ...

    def map_shards(
        self, work: ShardWork[State_co], shards: Sequence[Shard], commit: Callable[[Any], Committed]
    ) -> "Iterator[tuple[Shard, Future[Committed]]]":
        """Do the work for each shard, commit what it returns, and yield the shards as they are committed.

        Each comes with what `commit` returned, or with the `LorifError` or `RuntimeError` that stopped it; the other shards
        are not concerned. Any other error ends the work, after what was committed before it.

        Args:
            work: read, compute and store, done by a worker.
            shards: each is handed to one worker. Their `str` names them in logs and errors.
            commit: called in this process, for one shard at a time: nothing else writes rows.
        """
        ...


class Engine(Protocol):
    """Something that workers can be had from."""

    def workers(self, opening: Opening[State], log: logging.Logger) -> AbstractContextManager[Workers[State]]:
        """Yield workers that open their state by `opening`; they and their states end with the `with` block."""
        ...

    def found(self) -> str:
        """Return what it finds to compute with, in words.

        Raises:
            SettingsError: it finds nothing.
        """
        ...


def results(workers: Workers[State], work: ShardWork[State], shards: Sequence[Shard]) -> Iterator[Any]:
    """Yield what the work returns for each shard, in the order of the shards, as soon as those before it are there.

    Raises:
        Exception: what a shard failed with.
    """
    places = {id(shard): place for place, shard in enumerate(shards)}
    early: dict[int, Any] = {}
    wanted = 0
    for shard, outcome in workers.map_shards(work, shards, _unchanged):
        early[places[id(shard)]] = outcome.result()
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1


def result(workers: Workers[State], function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a function of the state of one worker, whichever it is, returns."""
    (only,) = results(workers, Step(_called, arguments), [_Call(function)])
    return only


@dataclass(frozen=True)
class _Call:
    function: Callable[..., Any]

    def __str__(self) -> str:
        # Of a function with arguments its own name: they may hold credentials.
        named = getattr(self.function, "func", self.function)
        return str(named.__name__).replace("_", " ").strip()


def _called(state: Any, call: _Call, *arguments: Any) -> Any:
    return call.function(state, *arguments)


def _unchanged(found: Any) -> Any:
    return found
