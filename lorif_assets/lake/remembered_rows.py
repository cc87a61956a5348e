"""A lake for a process that answers one question after the other: rows are read once for each version of their table."""

import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Self

import polars as pl

from lorif_assets.lake.lake import Lake
from lorif_assets.lake.snapshot import LakeSnapshot
from lorif_assets.lake.table_schema import TableSchema

if TYPE_CHECKING:
    from deltalake import DeltaTable

_BUDGET_BYTES = 256 << 20
_LOOK_EVERY_SECONDS = 2.0


@dataclass
class _Remembered:
    snapshot: LakeSnapshot
    looked: float
    rows: OrderedDict[Hashable, pl.DataFrame] = field(default_factory=OrderedDict)
    n_bytes: int = 0
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True)
class RememberingLake(Lake):
    """A lake that remembers the rows it read, for reading alone; safe to use in threads.

    What other processes commit is seen within `look_every` seconds. Rows that were asked for longest ago are forgotten where
    they take more than `budget_bytes`.
    """

    look_every: float = _LOOK_EVERY_SECONDS
    budget_bytes: int = _BUDGET_BYTES
    _remembered: _Remembered = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "_remembered", _Remembered(LakeSnapshot.of(self), time.monotonic()))

    @classmethod
    def of(cls, lake: Lake) -> Self:
        """Return a lake that remembers what it reads of another; nothing is read yet."""
        return cls(root=lake.root, storage_options=lake.storage_options)

    def read(
        self, schema: TableSchema, columns: Sequence[str] | None = None, **filters: str | Sequence[str]
    ) -> pl.DataFrame:
        """Return rows as `Lake.read` does, from memory where the table is still at the version that they were read at.

        Raises:
            TableError: the table cannot be read.
        """
        snapshot = self._newest()
        wanted = tuple(
            sorted((name, value if isinstance(value, str) else tuple(value)) for name, value in filters.items())
        )
        key = (schema.name, _version(snapshot, schema), columns and tuple(columns), wanted)
        remembered = self._remembered
        with remembered.lock:
            if key in remembered.rows:
                remembered.rows.move_to_end(key)
                return remembered.rows[key]
        rows = snapshot.read(schema, columns, **filters)
        with remembered.lock:
            if key not in remembered.rows:
                remembered.rows[key] = rows
                remembered.n_bytes += int(rows.estimated_size())
            while remembered.n_bytes > self.budget_bytes:
                _, forgotten = remembered.rows.popitem(last=False)
                remembered.n_bytes -= int(forgotten.estimated_size())
        return rows

    def table(self, schema: TableSchema) -> "DeltaTable | None":
        """Return a table as it was at the last look, or None if it did not exist.

        Raises:
            TableError: as `Lake.table`.
        """
        return self._newest().table(schema)

    def version(self, schema: TableSchema) -> str | None:
        """Return what tells a table's state at the last look from any other; None where it does not exist.

        Raises:
            TableError: the table cannot be read.
        """
        return _version(self._newest(), schema)

    def _newest(self) -> LakeSnapshot:
        remembered = self._remembered
        with remembered.lock:
            if time.monotonic() - remembered.looked >= self.look_every:
                remembered.snapshot, remembered.looked = LakeSnapshot.of(self), time.monotonic()
            return remembered.snapshot


def _version(snapshot: LakeSnapshot, schema: TableSchema) -> str | None:
    table = snapshot.table(schema)
    # The versions of a table that is made again, in a lake that was deleted, have the numbers of the one before.
    return None if table is None else f"{table.metadata().id}-{table.version()}"
