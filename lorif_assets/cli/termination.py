"""Commands that start other programs end them too where they are ended by SIGTERM, as by a scheduler or `timeout`."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_ENDED = 128 + signal.SIGTERM


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM leave the `with` block as Ctrl-C does; by itself it ends a process without its `finally`."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(_ENDED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
