"""What tests of commands share: the command itself, and how its messages are read."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lorif_assets.cli.main import main
from tests.conftest import TinyProject

Lorif = Callable[..., Result]


@pytest.fixture
def lorif(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lorif:
    """Runs a command in a wide terminal, in an empty directory."""
    monkeypatch.setenv("COLUMNS", "200")
    # Set by the command, for Dagster's processes; taken back here.
    monkeypatch.setenv("LORIF_CONFIG", "")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def config(private_project: TinyProject) -> tuple[str, Path]:
    return "--config", private_project.root / "lorif.toml"
