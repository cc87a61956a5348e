"""`lorif report`: the newest report is opened where there is somebody to look at it, and its path is printed."""

import shutil
import webbrowser
from pathlib import Path

import pytest

from lorif_assets.cli import report as command
from tests.cli.conftest import Lorif
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was sent to, as if a person looked on."""
    addresses: list[str] = []
    monkeypatch.setattr(webbrowser, "open", addresses.append)
    monkeypatch.setattr(command, "_has_browser", lambda: True)
    return addresses


def page(project: TinyProject, checkpoint: str) -> Path:
    return project.root / f"lake/reports/{checkpoint}/{QUERY_SET}.html"


def test_the_report_of_the_newest_checkpoint_is_opened_and_its_path_printed(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject, opened: list[str]
) -> None:
    result = lorif("report", *config)
    newest = page(private_project, CHECKPOINTS[1])
    assert result.output == f"{newest}\n"
    assert opened == [newest.as_uri()]
    older = lorif("report", "--checkpoint", CHECKPOINTS[0], "--query-set", QUERY_SET, "--print", *config)
    assert older.output == f"{page(private_project, CHECKPOINTS[0])}\n"
    assert len(opened) == 1


def test_nothing_is_opened_where_a_program_reads_the_path(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webbrowser, "open", lambda address: pytest.fail(f"{address} was opened"))
    monkeypatch.setenv("DISPLAY", ":0")
    assert lorif("report", *config).exit_code == 0


@pytest.mark.usefixtures("opened")
def test_a_report_that_is_not_there_is_a_message(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject
) -> None:
    said = lorif("report", "--query-set", "nothing", *config).stderr
    assert "no report of nothing at any checkpoint; it has step-000100 questions, step-000200 questions" in said
    page(private_project, CHECKPOINTS[1]).unlink()
    assert "is gone; materialize `attribution_report`" in lorif("report", *config).stderr
    shutil.rmtree(private_project.root / "lake/reports")
    assert "it has none at all" in lorif("report", *config).stderr
