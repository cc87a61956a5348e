"""The project that the scenario watches."""

import io
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from lorif_assets.demo.run import DemoPaths
from lorif_assets.demo.watched_project import WatchedProject


def test_dagster_is_started_on_a_port_that_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **_: commands.append(command))
    WatchedProject(tmp_path, DemoPaths(tmp_path / "demo"), Console(file=io.StringIO())).start()
    (command,) = commands
    # Of a port that is named and taken, `dagster dev` ends; without one it takes another.
    assert "--port" not in command
