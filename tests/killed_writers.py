"""Processes that the system kills while they write a file: it grows beyond what they may write."""

import signal
import subprocess
import sys
import textwrap

_LIMIT = 100_000
_START = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, ({_LIMIT}, {_LIMIT}))
"""


def killed_while_writing(program: str) -> None:
    """Run a program that writes a file of more than 100,000 bytes, and dies in the middle."""
    done = subprocess.run(
        [sys.executable, "-c", _START + textwrap.dedent(program)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGXFSZ, done.stderr
