"""Progress of long work: a bar in a terminal, a log line now and then where there is none."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Self

from tqdm import tqdm

LINES = logging.getLogger(__name__)
"""Where the lines go, besides a log of the work's own; silent until someone listens."""
_LOG_EVERY_SECONDS = 15.0

Watcher = Callable[[str, int, int, str], None]
"""Told how far work is: its label, units done, units of all of it, and what is counted."""
_WATCHER: ContextVar[Watcher | None] = ContextVar("progress_watcher", default=None)


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell a watcher of all work that begins in the `with` block, at its beginning and at each step."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def tell_wait(words: str) -> None:
    """Tell whoever watches the work what it waits for."""
    if watcher := _WATCHER.get():
        watcher(words, 0, 0, "")


class Progress:
    """Counts units of work towards a total; used as a context manager.

    Args:
        label: the work, in a few words.
        total: units of all of it.
        unit: what is counted.
        log: the log of the run that the work belongs to, which gets the lines too.
        in_bursts: whether many units are done together and then counted one by one, as the layers of a checkpoint are: after
            a wait, what was counted before it tells the pace.
    """

    def __init__(
        self, label: str, total: int, unit: str, log: logging.Logger = LINES, *, in_bursts: bool = False
    ) -> None:
        self.log, self._label, self._total, self._unit = log, label, total, unit
        # disable=None: no bar where standard error is no terminal.
        self._bar = tqdm(total=total, desc=label, unit=unit, unit_scale=True, disable=None, leave=False)
        self._done = 0
        self._in_bursts = in_bursts
        self._started = self._logged = self._stepped = time.monotonic()
        # Steps may be counted in other threads, which have no watcher of their own.
        self._watcher = _WATCHER.get()
        self._tell()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return self._done / max(time.monotonic() - self._started, 1e-9)

    def advance(self, units: int) -> None:
        """Count finished units."""
        now = time.monotonic()
        counted, at = self._done + units, now
        if self._in_bursts and now - self._stepped >= _LOG_EVERY_SECONDS and self._done + units < self._total:
            counted, at = self._done, self._stepped
        self._done, self._stepped = self._done + units, now
        self._bar.update(units)
        self._tell()
        if now - self._logged >= _LOG_EVERY_SECONDS:
            self._logged = now
            line = f"{self._label}: {self._done:,} of {self._total:,} {self._unit}"
            if counted:
                rate = counted / max(at - self._started, 1e-9)
                left = round((self._total - counted) / rate - (now - at))
                # Less than none: this burst takes longer than those before, and for how long nobody knows.
                line += f" ({_pace(rate, self._unit)}{f', {duration(left)} left' if left >= 0 else ''})"
            self.log.info(line)
            if self.log is not LINES:
                LINES.info(line)

    def _tell(self) -> None:
        if self._watcher:
            self._watcher(self._label, self._done, self._total, self._unit)


_PARTITIONS: ContextVar[Progress | None] = ContextVar("partitions", default=None)


@contextmanager
def partition_progress(label: str, total: int) -> Iterator[None]:
    """Show inside the block how many of `total` partitions are done, each counted by `count_partition`."""
    with Progress(label, total, "partitions", in_bursts=True) as progress:
        token = _PARTITIONS.set(progress)
        try:
            yield
        finally:
            _PARTITIONS.reset(token)


def count_partition() -> None:
    """Count a partition that is done, where somebody shows how many are."""
    if progress := _PARTITIONS.get():
        progress.advance(1)


def duration(seconds: float) -> str:
    """Return a time in words: seconds up to two minutes, minutes up to two hours, then hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:.1f} h"


def _pace(rate: float, unit: str) -> str:
    """Return units per second in words, of slow work per minute."""
    return f"{60 * rate:.2g} {unit}/min" if rate < 1 else f"{rate:,.0f} {unit}/s"
