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

Beginning = tuple[int, bool]
"""The first messages of a conversation: how many, and whether with the generation prompt."""


class _Worker(LimitedProcess):
    program = Path(__file__).with_name("template_program.py")
    purpose = "renders chat templates"

    def limits(self) -> Sequence[int]:
        return MEBIBYTES, SECONDS, LONGEST_TEXT

    def answers(self, question: Mapping[str, Any], beginnings: Sequence[Beginning]) -> list[dict[str, Any]]:
        """Return what the program says of some beginnings of a conversation, up to the first that ends it.

        Raises:
            OverrunError: that is the first of them.
        """
        with self._lock:
            asked = json.dumps({**question, "beginnings": beginnings}, default=str).encode()
            answers: list[dict[str, Any]] = list(map(json.loads, self._asked(asked, len(beginnings))))
            if not answers:
                raise OverrunError(self._end())
            return answers


class _Workers:
    """The processes, each for one conversation at a time, and how often they were ended by which template."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin as new, as a process that was forked has to."""
        self._overruns: Counter[str] = Counter()
        self._idle: LifoQueue[_Worker] = LifoQueue()
        for _ in range(n_workers()):
            self._idle.put(_Worker())

    def answers(
        self, owner: str, question: Mapping[str, Any], beginnings: Sequence[Beginning]
    ) -> list[dict[str, Any] | OverrunError]:
        """As `rendered_apart`."""
        source, answers = str(question["chat_template"]), list[dict[str, Any] | OverrunError]()
        worker = self._idle.get()
        try:
            while len(answers) < len(beginnings):
                if self._overruns[source] >= MOST_OVERRUNS:
                    raise CheckpointError(
                        f"the chat template of {owner} went beyond its limits on {MOST_OVERRUNS} conversations ({SECONDS} "
                        f"seconds of the processor, {MEBIBYTES:,} MiB), and is rendered no more; correct the checkpoint's "
                        "chat_template.jinja"
                    )
                try:
                    answers += worker.answers(question, beginnings[len(answers) :])
                except OverrunError as overrun:
                    self._overruns[source] += 1
                    answers.append(overrun)
        finally:
            self._idle.put(worker)
        return answers


def n_workers() -> int:
    """Return how many processes render at most: as many as there are cores for, and no more than keep one thread busy."""
    return min(_MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


_workers = _Workers()
os.register_at_fork(after_in_child=_workers.forget)


def rendered_apart(
    owner: str, question: Mapping[str, Any], beginnings: Sequence[Beginning]
) -> list[dict[str, Any] | OverrunError]:
    """Return what `template_program.answered` says of beginnings of a conversation, or how one has ended the process.

    Args:
        owner: whose template it is, for messages.
        question: the arguments of `render_jinja_template`, as JSON can hold them, with the `messages` of one conversation.
        beginnings: of how many messages each is, and whether with the generation prompt.

    Raises:
        CheckpointError: the template has ended the process too often.
    """
    return _workers.answers(owner, question, beginnings)
