"""Locks that all processes of a machine share, whichever user runs them."""

import tempfile
from contextlib import suppress
from pathlib import Path

from filelock import FileLock


def machine_lock(name: str) -> FileLock:
    """Return the lock of this name; not yet acquired."""
    folder = Path(tempfile.gettempdir(), "lorif-locks")
    folder.mkdir(exist_ok=True)
    # Only its owner may change the folder's mode, and has done so.
    with suppress(PermissionError):
        folder.chmod(0o777)
    return FileLock(folder / f"{name}.lock", mode=0o666)
