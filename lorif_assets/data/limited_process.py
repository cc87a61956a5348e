"""A process of its own for a program of strangers': one may run for ever, or fill the memory.

What one operation does in C or Rust cannot be interrupted. So the process has limits, and ends at them; what is asked next
gets another one.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import ClassVar

# Where programs find the project's modules, installed or not.
_PROJECT = Path(__file__).parents[2]
# What a Python that is installed anywhere needs to start; no secret is among them.
_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "TMPDIR")


class OverrunError(Exception):
    """What was asked has ended the process; the message says how."""


class LimitedProcess(ABC):
    """The process, started when it is first needed and kept; one question at a time."""

    program: ClassVar[Path]
    """The file that it runs, which is given the connection's file descriptor and then the limits."""
    purpose: ClassVar[str]
    """What it does, for messages."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin as new: two processes that spoke through one connection would get each other's answers."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._status = 0
        self._is_interrupted = False

    @abstractmethod
    def limits(self) -> Sequence[int]:
        """Return MiB of memory, seconds of the processor for one answer, and what else the program takes."""

    def _asked(self, question: bytes, n_answers: int = 1) -> list[bytes]:
        """Return the answers to a question, fewer than there should be where one of them has ended the process."""
        answers: list[bytes] = []
        try:
            connection = self._started()
            connection.send_bytes(question)
            while len(answers) < n_answers:
                answers.append(connection.recv_bytes())
        except (EOFError, OSError):
            return answers
        except BaseException:
            # The answer that is on its way would be taken for the next one.
            self._end(patience=0.0)
            raise
        return answers

    def _started(self) -> Connection:
        if self._process is not None and self._connection is not None and self._process.poll() is None:
            return self._connection
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                # -P: modules beside the program must not stand in for libraries of the same name.
                [
                    sys.executable,
                    "-P",
                    str(self.program),
                    *map(str, (theirs.fileno(), *self.limits())),
                ],
                pass_fds=[theirs.fileno()],
                # In a group of its own: Ctrl-C in a terminal would meet it before it can ignore it.
                process_group=0,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={
                    **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
                    "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(_PROJECT)])),
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
            raise RuntimeError(f"the process that {self.purpose} does not start: it {how}") from error
        return self._connection

    def interrupt(self) -> None:
        """End the process under whoever waits for its answer."""
        self._is_interrupted = True
        if (process := self._process) is not None:
            process.kill()

    def _end(self, patience: float = 1.0) -> str:
        """End the process, and return in words how it ended if it did by itself, for which it has some seconds."""
        process, connection = self._process, self._connection
        self._process = self._connection = None
        if connection is not None:
            connection.close()
        if process is None:
            return "was not there"
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        process.kill()
        status = self._status = process.wait()
        if status == -signal.SIGVTALRM:
            return "took too long for all that was asked of it"
        if status == -signal.SIGPROF:
            return f"took more than {self.limits()[1]} seconds of the processor"
        return (
            f"ended the process that {self.purpose} ({signal.strsignal(-status) or status if status < 0 else status})"
        )
