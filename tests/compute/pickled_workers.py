"""An engine in this process to whose workers everything goes through pickle, as it does to other machines."""

import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lorif_assets.compute.shard_work import Opening, ShardWork, Worker
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress


@dataclass
class PickledEngine:
    """Some workers; of two shards, the second is done first."""

    count: int = 2
    opened: list[Any] = field(default_factory=list)
    """What was opened, once for each worker that had a shard."""
    done: list[str] = field(default_factory=list)
    """The shards, as they were done."""

    @contextmanager
    def workers(self, opening: Opening[Any], log: logging.Logger) -> Iterator["PickledWorkers"]:
        yield PickledWorkers(self, pickle.dumps(opening), log)


@dataclass
class PickledWorkers:
    engine: PickledEngine
    opening: bytes
    log: logging.Logger
    states: dict[int, Any] = field(default_factory=dict)

    @property
    def parts(self) -> int:
        return self.engine.count

    def map_shards(
        self, work: ShardWork[Any], shards: Sequence[Any], commit: Callable[[Any], Any]
    ) -> "Iterator[tuple[Any, Future[Any]]]":
        sent = pickle.dumps(work)
        for first in range(0, len(shards), 2):
            for shard in reversed(shards[first : first + 2]):
                outcome: Future[Any] = Future()
                try:
                    outcome.set_result(commit(self._done(sent, shard)))
                except Exception as error:
                    outcome.set_exception(pickle.loads(pickle.dumps(error)))
                self.engine.done.append(str(shard))
                yield shard, outcome

    def _done(self, sent: bytes, shard: Any) -> Any:
        state, work = self._state(), pickle.loads(sent)
        copy = pickle.loads(pickle.dumps(shard))
        return pickle.loads(pickle.dumps(work.store(state, work.compute(state, work.read(state, copy)))))

    def _state(self) -> Any:
        number = len(self.engine.done) % self.engine.count
        if number not in self.states:
            opening = pickle.loads(self.opening)
            self.engine.opened.append(opening)
            self.states[number] = opening(
                Worker(DeviceGroup.of("cpu"), self.log, lambda *named: Progress(*named, self.log), is_remote=True)
            )
        return self.states[number]
