"""Folders of files that are needed for a moment; those that a killed process left are removed by the next one.

A folder is in use while its lock is held, which the operating system gives back when the process that holds it dies, however it
dies. Folders of another machine are left to that machine: where a file system is shared, its locks may be of one machine alone.
"""

import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_LOCK, _FILES = "lock", "files"


@contextmanager
def scratch_folder(beside: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder, which is removed with what is in it at the end of the block.

    Args:
        beside: a folder on whose file system it has to be, as to move what is made into it in one step; it gets a hidden name
            there. None: the folder for temporary files.

    Raises:
        OSError: it cannot be made.
    """
    home = beside or Path(tempfile.gettempdir())
    _remove_left_ones(home)
    folder, lock = _made(home)
    try:
        yield folder / _FILES
    finally:
        _remove(folder)
        os.close(lock)


def _prefix() -> str:
    return f".lorif-scratch-{socket.gethostname()}-"


def _made(home: Path) -> tuple[Path, int]:
    """Return a new folder, and its lock, which is held."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(), dir=home))
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        # Another process may have found it before it was locked, and taken it for one that was left.
        if _is_locked(lock, ours_where_unknown=True) and _is_there(folder / _LOCK, lock):
            (folder / _FILES).mkdir()
            return folder, lock
        os.close(lock)


@cache
def _remove_left_ones(home: Path) -> None:
    """Remove what killed processes left in a folder, once in a process."""
    with suppress(OSError):
        for folder in home.iterdir():
            if folder.name.startswith(_prefix()):
                with suppress(OSError):
                    _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        if _is_locked(lock, ours_where_unknown=False):
            _remove(folder)
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """Remove a folder whose lock is held, and the lock last: what is left of it on the way is found by the next process."""
    shutil.rmtree(folder / _FILES, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _is_locked(lock: int, *, ours_where_unknown: bool) -> bool:
    """Lock a file unless another process has; `ours_where_unknown` is what to say where the file system has no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return ours_where_unknown
    return True


def _is_there(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
