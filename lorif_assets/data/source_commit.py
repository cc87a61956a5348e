"""The commit that a folder is at."""

import subprocess
from pathlib import Path

_SECONDS = 10


def source_commit(folder: Path) -> str | None:
    """Return the commit that is checked out in a folder's Git repository; None where it is in none, or Git is not there."""
    try:
        said = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return said.stdout.strip() if said.returncode == 0 else None
