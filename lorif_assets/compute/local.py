"""The engine `local`: one worker, this process, on a group of this machine's devices that it owns meanwhile."""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

from lorif_assets.compute.shard_pipeline import overlapped
from lorif_assets.compute.shard_work import Committed, Opening, Shard, ShardWork, State, Worker
from lorif_assets.models.devices import DeviceGroup, Devices
from lorif_assets.progress import Progress


@dataclass(frozen=True)
class LocalEngine:
    """This process, which waits for a group of the devices."""

    devices: Devices

    @contextmanager
    def workers(self, opening: Opening[State], log: logging.Logger) -> "Iterator[LocalWorkers[State]]":
        """Lease devices for the `with` block. The state is gone before another process gets them."""
        with self.devices.lease() as group:
            workers = LocalWorkers(_worker(group, log), opening)
            try:
                yield workers
            finally:
                workers.close()

    def found(self) -> str:
        """Return which group of devices a step leases, in words, and how it could have all of them."""
        groups = self.devices.groups()
        found = f"local, on {' or '.join(str(group) for group in groups)}"
        if len(groups) == 1:
            return found
        return (
            f'{found}, one for each step; with `compute.engine = "ray"` and `compute.address = "local"` a step computes on all '
            f"{len(groups)}"
        )


@dataclass
class LocalWorkers(Generic[State]):
    """The one worker that this process is."""

    worker: Worker
    opening: Opening[State]
    _state: State | None = None

    @property
    def parts(self) -> int:
        """One: what is cut is put together again by the same worker."""
        return 1

    @property
    def state(self) -> State:
        """The worker's state, opened when it is first asked for."""
        if self._state is None:
            self._state = self.opening(self.worker)
        return self._state

    def close(self) -> None:
        """Drop the state: memory is not free while a name refers to it."""
        self._state = None

    def map_shards(
        self, work: ShardWork[State], shards: Sequence[Shard], commit: Callable[[Any], Committed]
    ) -> "Iterator[tuple[Shard, Future[Committed]]]":
        """Do the work for one shard after the other; while one is computed, the next is read and the last is committed."""
        state = self.state
        return overlapped(
            shards,
            lambda shard: work.read(state, shard),
            lambda read: work.compute(state, read),
            lambda computed: commit(work.store(state, computed)),
        )


def _worker(group: DeviceGroup, log: logging.Logger) -> Worker:
    return Worker(group, log, lambda label, total, unit: Progress(label, total, unit, log))
