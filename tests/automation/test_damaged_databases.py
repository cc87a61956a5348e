"""A database of Dagster's that is damaged is named, whole ones are not, and one that is in use is left in peace."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lorif_assets.automation.damaged_databases import damage_in_words, damaged_databases


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name in ("history/runs.db", "history/runs/index.db", "schedules/schedules.db"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("CREATE TABLE rows (text TEXT)")
            connection.executemany("INSERT INTO rows VALUES (?)", [(f"row {k} " * 50,) for k in range(500)])
            connection.commit()
    return tmp_path


def overwritten(content: bytes) -> bytes:
    return content[:8_192] + os.urandom(8_192) + content[16_384:]


@pytest.mark.parametrize(
    "damage",
    [lambda content: b"", lambda content: os.urandom(5_000), lambda content: content[:9_000], overwritten],
    ids=["emptied", "replaced", "cut", "overwritten"],
)
@pytest.mark.parametrize("name", ["history/runs.db", "history/runs/index.db", "schedules/schedules.db"])
def test_the_one_that_is_damaged_is_named(home: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    file = home / name
    file.write_bytes(damage(file.read_bytes()))
    found = damaged_databases(home)
    assert list(found) == [file]
    assert damage_in_words(found).startswith(
        f"Dagster's records in {file} are damaged ({found[file]}). The lake is not"
    )


def test_whole_ones_are_not_named_and_neither_is_one_that_is_locked(home: Path) -> None:
    assert damaged_databases(home) == {}
    assert damaged_databases(home / "nowhere") == {}
    with closing(sqlite3.connect(home / "history/runs.db")) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        assert damaged_databases(home) == {}
