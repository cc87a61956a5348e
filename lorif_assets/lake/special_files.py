"""What lies where files are looked for and is none: pipes, sockets and devices, and what Git leaves in place of large files.

A pipe that is opened may hold a run up for ever.
"""

import stat
from pathlib import Path
from typing import Final

SPECIAL: Final = "a pipe, a socket or a device"
LFS_BEGINNING: Final = b"version https://git-lfs.github.com/spec/"
LFS_POINTER: Final = "a pointer of Git LFS in the place of the file itself: fetch it by `git lfs pull`"
_LONGEST_POINTER = 1_024


def is_special(path: Path) -> bool:
    """Whether there is something at a path, or where it links to, that is neither a file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is what a clone without Git LFS has in the place of a large one."""
    if file.stat().st_size > _LONGEST_POINTER:
        return False
    return file.read_bytes().startswith(LFS_BEGINNING)
