"""The engine `ray`: workers of a Ray cluster pull shards; this process hands them out and commits what comes back.

A worker that is lost, with its process, its node or the way to it, is replaced, and the shard that it had in hand is handed
out again. Nothing that a worker writes counts until this process commits a row that points to it, so a shard that is done
twice is stored once.
"""

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic

from lorif_assets.compute.ray_cluster import RayResources, connect
from lorif_assets.compute.ray_worker import REPORTS, Place, RayWorker, Reply, register_tensors
from lorif_assets.compute.shard_work import Committed, Opening, Shard, ShardWork, State
from lorif_assets.config.compute import ComputeSettings
from lorif_assets.errors import LorifError

_LOOK_SECONDS = 1.0
_REPORT_SECONDS = 5.0
_SUMMARY_SECONDS = 15.0
_NOTICE_SECONDS = 30.0
# A worker finds its next shard waiting when it has sent one off; more would lie there while others have nothing to do.
_HANDED_OUT = 2
_PARTS_PER_WORKER = 4


@dataclass(frozen=True)
class RayEngine:
    """Workers with a group of `devices_per_worker` GPUs each, or none where the cluster has no GPU."""

    settings: ComputeSettings
    devices_per_worker: int

    @contextmanager
    def workers(self, opening: Opening[State], log: logging.Logger) -> "Iterator[RayWorkers[State]]":
        """Connect to the cluster, and let workers start as they are needed, until the `with` block ends.

        Raises:
            SettingsError: there is no such cluster, Ray is not installed, or no node can hold a worker.
        """
        connect(self.settings)
        register_tensors()
        resources = RayResources.of(self.settings, self.devices_per_worker)
        workers = RayWorkers(opening, log, resources, self.settings.attempts)
        log.info(f"Ray: up to {resources.workers} workers, each with {resources}")
        try:
            yield workers
        finally:
            workers.close()

    def found(self) -> str:
        """Return how many workers the cluster holds, in words.

        Raises:
            SettingsError: there is no such cluster, Ray is not installed, or no node can hold a worker.
        """
        connect(self.settings)
        resources = RayResources.of(self.settings, self.devices_per_worker)
        return f"Ray, up to {resources.workers} workers with {resources} each; {resources.found()}"


@dataclass(eq=False)
class _Member:
    """A worker: its actor, the shards handed to it by their number, the first of them in hand, and where it is."""

    number: int
    actor: Any
    starting: Any
    shards: "deque[tuple[int, Any]]" = field(default_factory=deque)
    place: Place | None = None
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def awaited(self) -> Any:
        """What is heard of it next: that it is there, or what became of the shard in hand."""
        if self.place is None:
            return self.starting
        return self.shards[0][1] if self.shards else None

    def __str__(self) -> str:
        return f"worker {self.number}" + (f" ({self.place})" if self.place else ", which had not started")

    @property
    def rates(self) -> str:
        """What it counts in a second of work."""
        return ", ".join(f"{count / max(self.seconds, 1e-9):,.0f} {unit}/s" for unit, count in self.counts.items())


@dataclass(frozen=True)
class _Loss:
    """A worker was lost: what Ray says of it."""

    reason: str


@dataclass
class RayWorkers(Generic[State]):
    """Workers of one state, started when shards are there for them."""

    opening: Opening[State]
    log: logging.Logger
    resources: RayResources
    attempts: int
    _members: list[_Member] = field(default_factory=list)
    _started: int = 0
    _failed_starts: int = 0
    # The newest worker when a start failed last. Older ones that fail too, as all of a node that is lost, are no new failure.
    _blamed: int = 0
    _works: int = 0
    _reported: float = field(default_factory=time.monotonic)
    _summarised: float = field(default_factory=time.monotonic)
    _heard: float = field(default_factory=time.monotonic)

    @property
    def parts(self) -> int:
        """A few for each worker, so that the last of them is not waited for long."""
        return _PARTS_PER_WORKER * self.resources.workers

    def map_shards(
        self, work: ShardWork[State], shards: Sequence[Shard], commit: Callable[[Any], Committed]
    ) -> "Iterator[tuple[Shard, Future[Committed]]]":
        """Hand the shards out, and yield each as it is committed here, in the order in which they are done.

        Raises:
            LorifError: no worker can be started.
        """
        import ray

        self._works += 1
        reference = ray.put(work)
        waiting, losses, done = deque(range(len(shards))), Counter[int](), 0
        self._heard = time.monotonic()
        try:
            while done < len(shards):
                self._staff(len(shards) - done)
                self._hand_out(reference, shards, waiting)
                for member, news in self._news():
                    if isinstance(news, _Loss):
                        failed = self._replaced(member, news, shards, waiting, losses)
                        outcomes = [(index, _failure(error)) for index, error in failed]
                    else:
                        index, _ = member.shards.popleft()
                        # Before the commit, so that the worker does not wait for it.
                        self._hand_out(reference, shards, waiting)
                        outcomes = [(index, self._committed(member, str(shards[index]), news, commit))]
                    for index, outcome in outcomes:
                        done += 1
                        yield shards[index], outcome
                self._listen(done, len(shards))
            self._listen(done, len(shards), at_the_end=True)
        finally:
            # Where the work was broken off: their results would be taken for those of the next.
            for member in [one for one in self._members if one.shards]:
                self._dismiss(member)

    def close(self) -> None:
        """End the workers."""
        for member in list(self._members):
            self._dismiss(member)

    def _staff(self, shards: int) -> None:
        import ray

        while len(self._members) < min(self.resources.workers, shards):
            self._started += 1
            devices = math.ceil(self.resources.gpus)
            kind = ray.remote(concurrency_groups={REPORTS: 1})(RayWorker)
            actor = kind.options(**self.resources.options).remote(self.opening, devices)
            self._members.append(_Member(self._started, actor, actor.place.remote()))

    def _hand_out(self, work: Any, shards: Sequence[Any], waiting: "deque[int]") -> None:
        present = [member for member in self._members if member.place]
        for held in range(_HANDED_OUT):
            for member in present:
                # The last shards go to those that have none in hand, also if they are still on their way.
                spare = len(waiting) > (len(self._members) if held else 0)
                if len(member.shards) == held and spare:
                    index = waiting.popleft()
                    member.shards.append((index, member.actor.run.remote(self._works, [work], shards[index])))

    def _news(self) -> Iterator[tuple[_Member, "Reply | _Loss"]]:
        """Wait a little, and yield who has finished a shard, and who was lost."""
        import ray

        awaited = {member.awaited: member for member in self._members if member.awaited is not None}
        ready, _ = ray.wait(list(awaited), num_returns=1, timeout=_LOOK_SECONDS)
        for reference in ready:
            member = awaited[reference]
            self._heard = time.monotonic()
            try:
                found = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                # The worker lives, but its answer could not be sent, or it could not read what it was sent.
                if member.place is None:
                    raise LorifError(f"{member} cannot be started: {error}") from error
                yield member, Reply(error=RuntimeError(str(error)))
            except ray.exceptions.RayError as error:
                yield member, _Loss(str(error).strip().partition("\n")[0].rstrip("."))
            else:
                if member.place is None:
                    member.place, self._failed_starts = found, 0
                    self.log.info(f"{member} is ready, with {found.devices}")
                else:
                    yield member, found

    def _committed(
        self, member: _Member, shard: str, reply: Reply, commit: Callable[[Any], Committed]
    ) -> "Future[Committed]":
        if reply.error:
            error = _located(reply.error, shard, member)
            if reply.traceback:
                error.add_note(f"In {member}:\n{reply.traceback}")
            if not reply.is_open or not isinstance(error, LorifError | RuntimeError):
                raise error
            return _failure(error)
        outcome: Future[Committed] = Future()
        try:
            outcome.set_result(commit(reply.value))
        except (LorifError, RuntimeError) as error:
            return _failure(error)
        return outcome

    def _replaced(
        self,
        member: _Member,
        loss: _Loss,
        shards: Sequence[Any],
        waiting: "deque[int]",
        losses: Counter[int],
    ) -> list[tuple[int, LorifError]]:
        """Take back the shards of a lost worker, and return the one in hand if it was tried too often."""
        handed = [index for index, _ in member.shards]
        member.shards.clear()
        self._dismiss(member)
        if member.place is None and member.number > self._blamed:
            self._failed_starts, self._blamed = self._failed_starts + 1, self._started
            if self._failed_starts >= self.attempts:
                raise LorifError(
                    f"workers could not be started {self._failed_starts} times in a row, each with {self.resources}: "
                    f"{loss.reason}. Is `lorif_assets` installed on every node, in the version that this process has?"
                )
        failed = []
        for index in reversed(handed):
            if index == handed[0]:
                losses[index] += 1
                if losses[index] >= self.attempts:
                    failed.append((index, self._given_up(member, str(shards[index]), loss, losses[index])))
                    continue
            waiting.appendleft(index)
        again = f"; {shards[handed[0]]} is handed out again" if handed and not failed else ""
        self.log.warning(f"{member} was lost{again}: {loss.reason}")
        return failed

    def _given_up(self, member: _Member, shard: str, loss: _Loss, times: int) -> LorifError:
        return LorifError(
            f"{shard}: {times} workers that had it in hand were lost, the last of them {member}: {loss.reason}. If the node's "
            "memory ran out, lower `batch.tokens` or `batch.gradient_mib`, or raise `compute.memory_gib`; "
            "`compute.attempts` says how often a shard is tried"
        )

    def _dismiss(self, member: _Member) -> None:
        import ray

        self._members.remove(member)
        try:
            ray.kill(member.actor)
        except (ray.exceptions.RayError, ValueError):
            # It is gone already.
            return

    def _listen(self, done: int, total: int, *, at_the_end: bool = False) -> None:
        """Log what workers have to say now and then: the run's log shows the run to be alive."""
        now = time.monotonic()
        if now - self._reported < _REPORT_SECONDS and not at_the_end:
            return
        self._reported = now
        self._fetch_reports()
        if at_the_end or now - self._summarised >= _SUMMARY_SECONDS:
            self._summarised = now
            busy = [member for member in self._members if member.counts]
            rates = "".join(f"; {member}: {member.rates}" for member in busy)
            self.log.info(f"Ray: {done:,} of {total:,} shards done{rates}")
        if not any(member.place for member in self._members) and now - self._heard >= _NOTICE_SECONDS:
            self._heard = now
            self.log.warning(f"no worker has started yet: each asks for {self.resources}; {self.resources.found()}")

    def _fetch_reports(self) -> None:
        import ray

        asked = {member.actor.report.remote(): member for member in self._members if member.place}
        if not asked:
            return
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_REPORT_SECONDS)
        for reference in ready:
            member = asked[reference]
            try:
                report = ray.get(reference)
            except ray.exceptions.RayError:
                # That it is lost is heard of through its shard.
                continue
            member.counts, member.seconds = dict(report.counts), report.seconds
            for level, line in report.lines:
                self.log.log(level, f"{member}: {line}")


def _failure(error: Exception) -> "Future[Any]":
    outcome: Future[Any] = Future()
    outcome.set_exception(error)
    return outcome


def _located(error: Exception, shard: str, member: _Member) -> Exception:
    """Say in an error which shard it is of, and where it happened."""
    if error.args and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]} ({shard}, by {member})", *error.args[1:])
    return error
