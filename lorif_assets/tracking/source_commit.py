"""The commit of the repository that a project's settings lie in."""

import subprocess
from pathlib import Path


def source_commit(folder: Path) -> str:
    """Return the commit that is checked out in the repository around a folder; empty where there is none, or no git."""
    command = ["git", "-C", str(folder), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
