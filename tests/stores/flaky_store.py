"""A store that refuses every third request: a proxy before one, for the time of a `with` block."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import free_port


@contextmanager
def flaky(target: str, *words: str) -> Iterator[str]:
    """Start the proxy, and yield its address in place of the store's; the words are the last ones of its command."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("flaky_proxy.py")), str(port), target, *words]
    proxy = subprocess.Popen(command)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert proxy.poll() is None, "the proxy ended"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        proxy.terminate()
        proxy.wait(10)
