"""A process of its own for chat templates, which are programs of strangers: one may run for ever, or fill the memory.

Jinja's sandbox keeps a template from files and from Python's insides, not from loops and long texts; and what one operation
of Python's does in C cannot be interrupted. So the process has limits, and ends at them; the next row gets another one.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lorif_assets.errors import CheckpointError

SECONDS = 10
"""Of the processor, for one conversation; usual ones take less than a thousandth."""
MEBIBYTES = 1_024
"""Of memory, for one conversation."""
LONGEST_TEXT = 1 << 24
"""Characters."""
MOST_OVERRUNS = 3
"""Conversations of one template that may end the process before the template is refused."""
# What a Python that is installed anywhere needs to start; no secret is among them.
_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TMPDIR")


class TemplateOverrunError(Exception):
    """A template has ended the process that rendered it; the message says how."""


class _Worker:
    """The process, started when it is first needed and kept; one conversation at a time."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin as new: two processes that spoke through one connection would get each other's answers."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._overruns: Counter[str] = Counter()

    def answer(self, owner: str, request: Mapping[str, Any]) -> dict[str, Any]:
        source = str(request["chat_template"])
        with self._lock:
            if self._overruns[source] >= MOST_OVERRUNS:
                raise CheckpointError(
                    f"the chat template of {owner} went beyond its limits on {MOST_OVERRUNS} conversations ({SECONDS} seconds "
                    f"of the processor, {MEBIBYTES:,} MiB), and is rendered no more; correct the checkpoint's "
                    "chat_template.jinja"
                )
            try:
                connection = self._started()
                connection.send_bytes(json.dumps(request, default=str).encode())
                answer: dict[str, Any] = json.loads(connection.recv_bytes())
            except (EOFError, OSError) as error:
                self._overruns[source] += 1
                raise TemplateOverrunError(self._end()) from error
            except BaseException:
                # The answer that is on its way would be taken for the next one.
                self._end()
                raise
            return answer

    def _started(self) -> Connection:
        if self._process is not None and self._connection is not None and self._process.poll() is None:
            return self._connection
        ours, theirs = socket.socketpair()
        limits = (theirs.fileno(), MEBIBYTES, SECONDS, LONGEST_TEXT)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                # -P: modules beside the program must not stand in for libraries of the same name.
                [sys.executable, "-P", str(Path(__file__).with_name("template_program.py")), *map(str, limits)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={
                    **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "PYTHONHASHSEED": "0",
                    "TRANSFORMERS_VERBOSITY": "error",
                    "OMP_NUM_THREADS": "1",
                },
            )
        self._connection = Connection(ours.detach())
        try:
            self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            how = self._end()
            raise RuntimeError(f"the process that renders chat templates does not start: it {how}") from error
        return self._connection

    def _end(self) -> str:
        """End the process, and return in words how it ended if it did by itself."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return "was not there"
        process.kill()
        status = process.wait()
        if status == -signal.SIGPROF:
            return f"took more than {SECONDS} seconds of the processor"
        return f"ended the process that rendered it ({signal.strsignal(-status) or status if status < 0 else status})"


_worker = _Worker()
os.register_at_fork(after_in_child=_worker.forget)


def rendered_apart(owner: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `template_program.answered` says of a request.

    Args:
        owner: whose template it is, for messages.
        request: the arguments of `render_jinja_template`, as JSON can hold them.

    Raises:
        TemplateOverrunError: the template has ended the process.
        CheckpointError: it has done so too often.
    """
    return _worker.answer(owner, request)
