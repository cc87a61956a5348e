"""SIGTERM ends a command that started other programs in order: they end with it."""

import signal
import subprocess
import sys

_PROGRAM = """
import time
from lorif_assets.cli.termination import ended_in_order
try:
    with ended_in_order():
        print("begun", flush=True)
        time.sleep(600)
finally:
    print("ended what it started", flush=True)
"""


def test_sigterm_leaves_the_block_through_what_is_to_be_done_at_its_end() -> None:
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == "ended what it started\n"
        assert process.wait() == 128 + signal.SIGTERM
