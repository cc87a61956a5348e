"""What is damaged in a lake: which file of which partition, in words, and kept until the partition is made again.

A stage that meets damage stops with an error and leaves a note in the lake, so that the partition counts as missing: the
next materialization makes it again.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import polars as pl

from lorif_assets.errors import DamagedLakeError, StoreError
from lorif_assets.lake.checksums import checksum
from lorif_assets.lake.data_tables import REJECTED
from lorif_assets.lake.stored_files import StoredFiles
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.lake.tables import TABLES, command, maker

FOLDER: Final = "damaged"
"""Where the notes are."""
OTHER_CONTENT: Final = "is not what was written: its checksum differs"
NO_CHECKSUMS: Final = "cannot be checked, as its checksums are damaged"
UNREADABLE: Final = "cannot be read"
LOST: Final = "is gone"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Damage:
    """One damaged file.

    `partition` is that of the table whose rows it holds or that points to it, empty for a file of the whole table; `table` is
    empty for a file that no table has. `remedy` is what to do where making the partition again is not it.
    """

    file: str
    what: str
    table: str = ""
    partition: Mapping[str, str] = field(default_factory=dict)
    remedy: str = ""

    @property
    def asset(self) -> str:
        """The asset that makes the partition."""
        return maker(self.table, self.partition)

    @property
    def dimensions(self) -> Mapping[str, str]:
        """The partition in the dimensions of the asset's own table, which that of set-aside rows puts into one text."""
        if self.table != REJECTED.name or self.asset not in TABLES:
            return self.partition
        return dict(zip(TABLES[self.asset].partition_by, self.partition["part"].split("|"), strict=False))

    @property
    def what_to_do(self) -> str:
        """The command that mends it, and what that makes again."""
        if self.remedy:
            return self.remedy
        names = "|".join(self.dimensions.values())
        return f"run `{command(self.table)}`, which makes `{self.asset}`, partition {names}, again"

    @property
    def place(self) -> str:
        """The table and its partition."""
        if not self.table:
            return "no table"
        where = ", ".join(f"{name} = {value!r}" for name, value in self.partition.items())
        return f"the table {self.table}" + (f", {where}" if where else "")

    def error(self, root: str) -> DamagedLakeError:
        """Return the error of a stage that met it."""
        return DamagedLakeError(f"the lake {root} is damaged: {self}")

    def __str__(self) -> str:
        """Return all of it as a sentence."""
        return f"the file {self.file} of {self.place} {self.what}; {self.what_to_do}"

    def covers(self, asset: str, dimensions: Mapping[str, str]) -> bool:
        """Whether it makes a partition of an asset, or of one of its tables, unfit for use."""
        shared = self.dimensions.keys() & dimensions.keys()
        return (
            self.asset == asset and bool(shared) and all(self.dimensions[name] == dimensions[name] for name in shared)
        )

    def hides(self, schema: TableSchema, partition: Mapping[str, str]) -> bool:
        """Whether it makes a partition of a table unfit for use: its own, or one that is written together with it."""
        if schema.name == self.table:
            return dict(partition) == dict(self.partition)
        return self.covers(maker(schema.name, partition), partition)


def unreadable(error: Exception) -> str:
    """Return what is wrong with a file that a library cannot read: of what the library says, the first line."""
    lines = str(error).strip().splitlines()
    return f"{UNREADABLE} ({lines[0].strip()})" if lines else UNREADABLE


def log_damage(table: str, path: str, what: str, root: str) -> Damage:
    """Return the damage of a log of which there is no copy: all that the table holds depends on it."""
    folder = f"{root.rstrip('/')}/{table}"
    remedy = f"restore it from a backup, or delete {folder} and run `{command(table)}`, which makes all of it again"
    return Damage(path, what, table, remedy=remedy)


def hidden_rows(
    damaged: Sequence[Damage], schema: TableSchema, partitions: Iterable[Mapping[str, str]]
) -> pl.Expr | None:
    """Return which rows of a table are of those partitions that are to be made again; None where there are none."""
    hidden = [partition for partition in partitions if any(one.hides(schema, partition) for one in damaged)]
    rows = [pl.all_horizontal(*(pl.col(name) == value for name, value in one.items())) for one in hidden]
    return pl.any_horizontal(rows) if rows else None


def note(files: StoredFiles, damage: Damage) -> None:
    """Leave a note of damage in the lake; where it cannot be written to, in the log alone."""
    try:
        files.write(_path(damage), json.dumps(asdict(damage)).encode())
    except (OSError, StoreError) as error:
        _LOG.warning("the lake %s takes no note of its damage: %s", files.root, error)


def notes(files: StoredFiles) -> list[Damage]:
    """Return the damage that was met and not mended since."""
    found = []
    for path, _ in files.sizes(FOLDER):
        try:
            found.append(Damage(**json.loads(files.read(path))))
        except (OSError, ValueError, TypeError) as error:
            _LOG.warning("the note %s of the lake %s is passed over: %s", path, files.root, error)
    return found


def forget(files: StoredFiles, table: str, partition: Mapping[str, str]) -> None:
    """Remove the notes of a partition, which was made again."""
    for damage in notes(files):
        if damage.table == table and dict(damage.partition) == dict(partition):
            files.delete(_path(damage))


def _path(damage: Damage) -> str:
    return f"{FOLDER}/{checksum(damage.file.encode())}.json"
