"""Locks that all processes of one user on a machine share; the operating system frees one when its process dies."""

import logging
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from lorif_assets.errors import SettingsError

WAITS = logging.getLogger(__name__)
"""Where it is said what a process waits for."""
NOTICE_SECONDS = 5.0


def lock_folder() -> Path:
    """Return the folder of this user's locks, in the folder for temporary files; it is nobody else's to write to.

    Raises:
        SettingsError: something else lies there, such as a link or a folder that another user has made.
    """
    user = os.getuid()
    folder = Path(tempfile.gettempdir(), f"lorif-locks-{user}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise _unfit(folder, f"cannot be made ({error.strerror})") from error
    if not stat.S_ISDIR(found.st_mode):
        raise _unfit(folder, "is a symbolic link" if stat.S_ISLNK(found.st_mode) else "is no folder")
    if found.st_uid != user:
        raise _unfit(folder, f"belongs to another user (id {found.st_uid}, not {user})")
    if stat.S_IMODE(found.st_mode) != 0o700:
        folder.chmod(0o700)
    return folder


def _unfit(folder: Path, fault: str) -> SettingsError:
    return SettingsError(
        f"{folder}, the folder of locks between processes, {fault}; remove it, or set TMPDIR to a folder of your own"
    )


class MachineLock:
    """A lock by name, with the process that holds it; as a context manager it waits, and says for whom."""

    def __init__(self, name: str) -> None:
        """Name the lock; it is not yet acquired.

        Raises:
            SettingsError: as `lock_folder`.
        """
        folder = lock_folder()
        self._name, self._holder = name, folder / f"{name}.holder"
        self._lock = FileLock(folder / f"{name}.lock", mode=0o600)

    def acquire(self, timeout: float) -> None:
        """Acquire the lock within some seconds; a negative number waits for ever.

        Raises:
            filelock.Timeout: another process holds it.
        """
        self._lock.acquire(timeout=timeout)
        # For messages alone.
        with suppress(OSError):
            self._holder.write_text(str(os.getpid()))

    def release(self) -> None:
        """Give the lock back."""
        with suppress(OSError):
            self._holder.unlink()
        self._lock.release()

    @property
    def holder(self) -> str:
        """Who holds it, in words."""
        with suppress(OSError):
            if process := self._holder.read_text():
                return f"process {process}"
        return "another process"

    def __enter__(self) -> Self:
        try:
            self.acquire(NOTICE_SECONDS)
        except Timeout:
            WAITS.warning(f"waiting for {self.holder}, which holds the lock {self._name!r}")
            self.acquire(-1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
