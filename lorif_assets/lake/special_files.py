"""Pipes, sockets and devices that lie where files are looked for: one that is opened may hold a run up for ever."""

import stat
from pathlib import Path
from typing import Final

SPECIAL: Final = "a pipe, a socket or a device"


def is_special(path: Path) -> bool:
    """Whether there is something at a path, or where it links to, that is neither a file nor a folder."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
