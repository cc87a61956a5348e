"""One process at a time brings a lake up to date: what two did at once, both would compute."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import blake2b
from pathlib import Path

from filelock import FileLock, Timeout

from lorif_assets.lake.lake import Lake
from lorif_assets.machine_locks import lock_folder

_NAME = ".materializing"


@contextmanager
def sole_process(lake: Lake, announce: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other process brings the lake up to date, and keep the others waiting to the end of the block.

    The lock of a local lake lies in it, and holds wherever the lake is mounted; that of a lake in an object store holds for
    a user's processes on a machine. The operating system frees it when a process dies.

    Args:
        lake: what is brought up to date.
        announce: called with what is waited for, in words, where another process is at work.

    Raises:
        SettingsError: the lake is a directory that cannot be written to.
    """
    lock = _lock(lake)
    holder = Path(lock.lock_file).with_suffix(".process")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        announce(
            f"waiting for {_shown(holder)}, which brings the lake {lake.root} up to date; what it leaves undone is done then"
        )
        lock.acquire()
    try:
        _write(holder, f"process {os.getpid()} on {socket.gethostname()} since {datetime.now():%H:%M:%S}")
        yield
    finally:
        lock.release()


def _lock(lake: Lake) -> FileLock:
    if not lake.is_local:
        name = f"materializing-{blake2b(lake.root.encode(), digest_size=8).hexdigest()}"
        return FileLock(lock_folder() / f"{name}.lock", mode=0o600)
    lake.require_writable()
    Path(lake.root).mkdir(parents=True, exist_ok=True)
    return FileLock(Path(lake.root, f"{_NAME}.lock"), mode=0o666)


def _write(holder: Path, text: str) -> None:
    # For messages alone. Another user's file can be replaced, but not written to.
    with suppress(OSError):
        holder.unlink(missing_ok=True)
        holder.write_text(text)


def _shown(holder: Path) -> str:
    try:
        return holder.read_text() or "another process"
    except OSError:
        return "another process"
