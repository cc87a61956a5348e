"""Processes of their own for chat templates, which are programs of strangers: one may run for ever, or fill the memory.

Jinja's sandbox keeps a template from files and from Python's insides, not from loops and long texts.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import LifoQueue
from typing import Any

from lorif_assets.data.limited_process import LimitedProcess, OverrunError
from lorif_assets.errors import CheckpointError

SECONDS = 10
"""Of the processor, for one conversation; usual ones take less than a thousandth."""
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
        return MEBIBYTES, SECONDS, LONGEST_TEXT

    def answers(self, question: Mapping[str, Any], n_answers: int = 1) -> list[Answer]:
        """Return what the program says to a question, up to and with how an answer has ended it."""
        with self._lock:
            found = self._asked(json.dumps(question, default=str).encode(), n_answers)
            ended = [OverrunError(self._end())] if len(found) < n_answers else []
            return [*map(json.loads, found), *ended]


class _Workers:
    """The processes, each for one question at a time, and how often they were ended by which template."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin as new, as a process that was forked has to."""
        self._overruns: Counter[str] = Counter()
        self._idle: LifoQueue[_Worker] = LifoQueue()
        for _ in range(n_workers()):
            self._idle.put(_Worker())

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
        self._overruns[source] += sum(isinstance(answer, OverrunError) for answer in answers)
        return answers


def n_workers() -> int:
    """Return how many processes render at most: as many as there are cores for, and no more than keep one thread busy."""
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


_workers = _Workers()
os.register_at_fork(after_in_child=_workers.forget)


def answers_apart(owner: str, source: str, question: Mapping[str, Any], n_answers: int = 1) -> list[Answer]:
    """As `_Workers.answers`, by the processes of this one."""
    return _workers.answers(owner, source, question, n_answers)
