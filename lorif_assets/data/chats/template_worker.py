"""Processes of their own for chat templates, which are programs of strangers: one may run for ever, or fill the memory.

Jinja's sandbox keeps a template from files and from Python's insides, not from loops and long texts.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import LifoQueue
from threading import Lock
from typing import Any

from lorif_assets.data.limited_process import LimitedProcess, OverrunError
from lorif_assets.errors import CheckpointError

SECONDS = 10
"""Of the processor, for one rendering; usual ones take less than a thousandth."""
WHOLE_SECONDS = 300
"""For all of a conversation, of which a long one is rendered some hundreds of times."""
MEBIBYTES = 1_024
"""Of memory, for one conversation."""
LONGEST_TEXT = 1 << 24
"""Characters."""
MOST_OVERRUNS = 3
"""Conversations of one template that may end the process before the template is refused."""
_MOST_WORKERS = 6

Answer = dict[str, Any] | OverrunError
"""What the program says, or how it was ended by the question."""


class _Worker(LimitedProcess):
    program = Path(__file__).with_name("template_program.py")
    purpose = "renders chat templates"

    def limits(self) -> Sequence[int]:
        return MEBIBYTES, SECONDS, LONGEST_TEXT, WHOLE_SECONDS

    def answers(self, question: Mapping[str, Any], n_answers: int = 1) -> list[Answer]:
        """Return what the program says to a question, up to and with how an answer has ended it; some if it was killed."""
        with self._lock:
            asked = json.dumps(question, default=str).encode()
            found, ended = self._answered(asked, n_answers)
            if ended and self._status == -signal.SIGKILL and not self._is_interrupted:
                # Somebody else has ended it, perhaps for memory that the machine lacked: what is left is asked once more.
                found, ended = (found, None) if found else self._answered(asked, n_answers)
            return [*map(json.loads, found), *([OverrunError(ended)] if ended else [])]

    def _answered(self, asked: bytes, n_answers: int) -> tuple[list[bytes], str | None]:
        self._is_interrupted = False
        found = self._asked(asked, n_answers)
        return found, self._end() if len(found) < n_answers else None


class _Workers:
    """The processes, each for one question at a time, and how often they were ended by which template."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin as new, as a process that was forked has to."""
        self._overruns: Counter[str] = Counter()
        self._counting = Lock()
        self._idle: LifoQueue[_Worker] = LifoQueue()
        self._all = [_Worker() for _ in range(n_workers())]
        for worker in self._all:
            self._idle.put(worker)

    def interrupt(self) -> None:
        """End what is being rendered."""
        for worker in self._all:
            worker.interrupt()

    def answers(self, owner: str, source: str, question: Mapping[str, Any], n_answers: int = 1) -> list[Answer]:
        """Return what a process says to a question, up to and with how an answer has ended it.

        Args:
            owner: whose template it is, for messages.
            source: the template.
            question: as `template_program` takes it.
            n_answers: as many as it has.

        Raises:
            CheckpointError: the template has ended a process too often.
        """
        if self._overruns[source] >= MOST_OVERRUNS:
            raise CheckpointError(
                f"the chat template of {owner} went beyond its limits on {MOST_OVERRUNS} conversations ({SECONDS} seconds "
                f"of the processor, {MEBIBYTES:,} MiB), and is rendered no more; correct the checkpoint's "
                "chat_template.jinja"
            )
        worker = self._idle.get()
        try:
            answers = worker.answers(question, n_answers)
        finally:
            self._idle.put(worker)
        with self._counting:
            self._overruns[source] += sum(isinstance(answer, OverrunError) for answer in answers)
        return answers


def n_workers() -> int:
    """Return how many processes render at most: as many as there are cores for, and no more than keep one thread busy."""
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


_workers = _Workers()
os.register_at_fork(after_in_child=_workers.forget)


def interrupt() -> None:
    """End what processes of this one render: whoever waits for it gets an `OverrunError`."""
    _workers.interrupt()


def answers_apart(owner: str, source: str, question: Mapping[str, Any], n_answers: int = 1) -> list[Answer]:
    """As `_Workers.answers`, by the processes of this one."""
    return _workers.answers(owner, source, question, n_answers)
