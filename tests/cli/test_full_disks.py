"""A full disk ends a command with one sentence, and the command goes on once there is room."""

import errno
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from sqlalchemy.exc import OperationalError

from lorif_assets.cli import main as commands
from lorif_assets.lake.attribution_tables import QUERY_SCORES
from lorif_assets.lake.stored_files import StoredFiles
from tests.cli.conftest import Lorif
from tests.conftest import TinyProject


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/file")


def test_an_update_ends_at_the_first_thing_that_cannot_be_stored_and_goes_on_later(
    lorif: Lorif, config: tuple[str, Path], private_project: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_project.edit_shard(1, 4, "an error closes the file")
    private_project.edit_shard(2, 4, "an error opens the file")
    with monkeypatch.context() as patch:
        patch.setattr(StoredFiles, "_write_local", full)
        result = lorif("materialize", *config)
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    said = " ".join(result.output.split())
    assert said.count("nothing more can be written to") == 1
    assert "the disk is full. Make room there, then start this again" in said
    assert lorif("materialize", *config).exit_code == 0
    project = TinyProject.open(private_project.root, private_project.instance)
    assert not project.stale("training_examples")
    assert not project.stale("query_scores")
    assert project.table(QUERY_SCORES).height > 0


def test_what_else_cannot_be_written_is_named(lorif: Lorif, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands.main, "get_command", lambda *_: click.Command("status", callback=full))
    result = lorif("status")
    assert result.exit_code == 1
    assert "/somewhere/file cannot be written: the disk is full. Make room there" in " ".join(result.output.split())


@pytest.mark.parametrize("words", ["disk I/O error", "database or disk is full"])
def test_where_dagster_s_records_have_no_room_their_home_is_named(
    lorif: Lorif, config: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    def refused(*_: object) -> None:
        raise OperationalError("PRAGMA table_info", {}, sqlite3.OperationalError(words))

    monkeypatch.setattr(commands.main, "get_command", lambda *_: click.Command("status", callback=refused))
    monkeypatch.setenv("DAGSTER_HOME", str(config[1].parent))
    monkeypatch.setattr("lorif_assets.cli.main.shutil.disk_usage", lambda _: SimpleNamespace(free=4_096))
    result = lorif("status")
    assert result.exit_code == 1
    said = "".join(result.output.split())
    assert f"Dagster'srecords,ofthehome{config[1].parent}," in said
    assert "cannotbewritten:thediskisfull.Makeroomthere,andstartthisagain" in said


def test_where_dagster_has_no_home_an_error_of_a_database_stays_what_it_is(
    lorif: Lorif, config: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(*_: object) -> None:
        raise OperationalError("SELECT 1", {}, sqlite3.OperationalError("no such table"))

    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setattr(commands.main, "get_command", lambda *_: click.Command("status", callback=refused))
    assert isinstance(lorif("status").exception, OperationalError)
