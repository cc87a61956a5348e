"""A process of its own for chat templates, which are programs of strangers: one may run for ever, or fill the memory.

Jinja's sandbox keeps a template from files and from Python's insides, not from loops and long texts.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
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


class _Worker(LimitedProcess):
    program = Path(__file__).with_name("template_program.py")
    purpose = "renders chat templates"

    def forget(self) -> None:
        super().forget()
        self._overruns: Counter[str] = Counter()

    def limits(self) -> Sequence[int]:
        return MEBIBYTES, SECONDS, LONGEST_TEXT

    def answer(self, owner: str, request: Mapping[str, Any]) -> dict[str, Any]:
        source = str(request["chat_template"])
        with self._lock:
            if self._overruns[source] >= MOST_OVERRUNS:
                raise CheckpointError(
                    f"the chat template of {owner} went beyond its limits on {MOST_OVERRUNS} conversations ({SECONDS} seconds "
                    f"of the processor, {MEBIBYTES:,} MiB), and is rendered no more; correct the checkpoint's "
                    "chat_template.jinja"
                )
            answers = self._asked(json.dumps(request, default=str).encode())
            if not answers:
                self._overruns[source] += 1
                raise OverrunError(self._end())
            answer: dict[str, Any] = json.loads(answers[0])
            return answer


_worker = _Worker()
os.register_at_fork(after_in_child=_worker.forget)


def rendered_apart(owner: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `template_program.answered` says of a request.

    Args:
        owner: whose template it is, for messages.
        request: the arguments of `render_jinja_template`, as JSON can hold them.

    Raises:
        OverrunError: the template has ended the process.
        CheckpointError: it has done so too often.
    """
    return _worker.answer(owner, request)
