"""Dagster's databases that a disk or a kill damaged: their libraries say that one is, and not which."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path


def damaged_databases(home: Path) -> Mapping[Path, str]:
    """Return the SQLite files below Dagster's home that are not whole, sorted, each with what SQLite says of it.

    What another process holds locked is whole, as far as can be told.
    """
    files = sorted(path for folder in ("history", "schedules", "storage") for path in (home / folder).rglob("*.db"))
    found = {file: _fault(file) for file in files}
    return {file: fault for file, fault in found.items() if fault}


def damage_in_words(damaged: Mapping[Path, str]) -> str:
    """Return what is damaged and what to do, as a message."""
    file, fault = next(iter(damaged.items()))
    more = f", and {len(damaged) - 1} more of its databases" if len(damaged) > 1 else ""
    return (
        f"Dagster's records in {file} are damaged ({fault}){more}. The lake is not, and no result is lost: move the file away "
        "and start this again. Dagster then makes a new one, without what stood there of earlier runs"
    )


def _fault(file: Path) -> str:
    try:
        if not file.stat().st_size:
            return "it is empty"
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        return ""
    except (sqlite3.DatabaseError, OSError) as error:
        return str(error)
    return "" if verdict == "ok" else str(verdict)
