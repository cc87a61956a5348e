"""The Delta tables of a lake: reading them, and replacing partitions atomically, in a directory or an object store.

Tables that fit in memory are read whole.
"""

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

import polars as pl
import pyarrow as pa
import pyarrow.fs as pafs

from lorif_assets.config.secrets import MaskedError, kept_secret, secrets_of
from lorif_assets.errors import DamagedLakeError, SettingsError, TableError
from lorif_assets.lake.damage import (
    LOST,
    OTHER_CONTENT,
    UNREADABLE,
    Damage,
    forget,
    hidden_rows,
    log_damage,
    note,
    notes,
    unreadable,
)
from lorif_assets.lake.delta_paths import data_files, refused_character, scan_table
from lorif_assets.lake.format_version import mark_format, stored_format
from lorif_assets.lake.full_disks import writing_to
from lorif_assets.lake.seals import LOG, damaged_data_files, damaged_log_files, remove_seals, seal_commit
from lorif_assets.lake.stored_files import StoredFiles
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.lake.table_writing import conformed, drop, holds_partition, overwrite
from lorif_assets.lake.unreadable import UnreadableError, panics_as_errors
from lorif_assets.lake.written_rows import WrittenRows, commit_rows, write_rows

if TYPE_CHECKING:
    from deltalake import DeltaTable

_CONFLICT_RETRIES = 30
_LOOKS_AGAIN = (0.05, 0.2, 0.5)
"""Seconds between looks at a table that cannot be read, before it counts as damaged."""


@dataclass(frozen=True)
class LakeTables:
    """Tables below one root: a directory, or the URL of an object store with delta-rs's options.

    Raises:
        SettingsError: the directory's path has a character that no Delta table's can have.
    """

    root: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    hidden: tuple[Damage, ...] = field(default=(), compare=False)
    """Damage whose partitions are read as if they were not there, to find what is to be made again."""

    def __post_init__(self) -> None:
        character = refused_character(self.root)
        if character:
            raise SettingsError(
                f"the lake cannot lie in {self.root!r}: Delta tables have no path with the character {character!r}; set "
                "`lake.root` to another place"
            )

    def require_writable(self) -> None:
        """Refuse a directory that cannot be written to, or made; what an object store allows is seen at the first write.

        Raises:
            SettingsError: as it says.
        """
        if not self.is_local:
            return
        there = next(path for path in (Path(self.root), *Path(self.root).parents) if path.exists())
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            raise SettingsError(
                f"the lake {self.root} cannot be written to: {there} is {'read-only' if there.is_dir() else 'a file'}; correct "
                "`lake.root`, or the permissions"
            )

    def uri(self, schema: TableSchema) -> str:
        """Return where a table is, for any Delta reader."""
        return f"{self.root.rstrip('/')}/{schema.name}"

    def without_damaged(self) -> Self:
        """Return the lake with the partitions missing that were found damaged and not made again since."""
        found = notes(self.stored)
        return replace(self, hidden=tuple(found)) if found else self

    def table(self, schema: TableSchema) -> "DeltaTable | None":
        """Return the table at its newest version, or None before its first row.

        Raises:
            TableError: it cannot be read, another writer left deletion vectors in it, which the streaming readers do not
                apply, or a newer version of the project wrote the lake.
            DamagedLakeError: its log is not what was written, and there is no copy of it.
            StoreError: the object store cannot be reached, or refuses.
        """
        stored_format(self.stored)
        damaged = damaged_log_files(self.stored, schema.name) if self.is_local else []
        if damaged:
            raise log_damage(schema.name, damaged[0], OTHER_CONTENT, self.root).error(self.root)
        # At this moment another process or thread may be making the table, or writing to it: damage is what stays.
        for seconds in _LOOKS_AGAIN:
            try:
                table = self._table_now(schema)
            except DamagedLakeError:
                time.sleep(seconds)
            else:
                break
        else:
            table = self._table_now(schema)
        if table is None:
            return None
        if "deletionVectors" in (table.protocol().reader_features or []):
            raise TableError(
                f"the table {self.uri(schema)} uses deletion vectors, so another program deleted rows of it; run "
                "`REORG TABLE ... APPLY (PURGE)` there, or delete the table and materialize it again"
            )
        return table

    def _table_now(self, schema: TableSchema) -> "DeltaTable | None":
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            with kept_secret(secrets_of(self.storage_options)), panics_as_errors():
                return DeltaTable(self.uri(schema), storage_options=dict(self.storage_options) or None)
        except TableNotFoundError as error:
            log = f"{schema.name}/{LOG}"
            if self.is_local and any(path.endswith(".json") for path, _ in self.stored.sizes(log)):
                raise log_damage(schema.name, log, UNREADABLE, self.root).error(self.root) from error
            return None
        except (DeltaError, OSError, ValueError, UnreadableError, MaskedError) as error:
            if self.is_local and not isinstance(error, OSError | MaskedError):
                damage = log_damage(schema.name, f"{schema.name}/{LOG}", unreadable(error), self.root)
                raise damage.error(self.root) from error
            raise TableError(
                f"the table {self.uri(schema)} cannot be read; check `lake.root` and `lake.storage_options`: {error}"
            ) from error

    def write_ahead(self, schema: TableSchema, partition: Mapping[str, str], rows: pa.Table) -> WrittenRows:
        """Write rows of a partition that `replace`, in whatever process, then only has to commit; until then they are not read.

        Raises:
            TableError: the rows have other columns or types than the table declares, or rows outside the partition.
        """
        return write_rows(self.stored, schema, partition, rows)

    def replace(self, schema: TableSchema, partition: Mapping[str, str], rows: pa.Table | WrittenRows) -> int:
        """Replace one partition by these rows, atomically, and return the table's new version.

        Writers of different partitions do not disturb one another; a crash leaves the old rows or the new ones.

        Args:
            schema: the table.
            partition: a value for each of the table's partition columns.
            rows: the new rows, or those that `write_ahead` has written; empty removes the partition.

        Raises:
            TableError: the rows have other columns or types than the table declares, or rows outside the partition.
        """
        from deltalake.exceptions import CommitFailedError

        data = rows if isinstance(rows, WrittenRows) else conformed(schema, partition, rows)
        mark_format(self.stored)
        table = self._created(schema, data)
        # A commit that fails may have been made, and its answer lost: what it wrote is sealed too.
        before = table.version()
        for attempts_left in reversed(range(_CONFLICT_RETRIES + 1)):
            try:
                if isinstance(data, WrittenRows):
                    commit_rows(table, data)
                else:
                    overwrite(table, schema, partition, data)
            except CommitFailedError:
                # delta-rs retries what other partitions' writers cause, but not the columns of new layers that another
                # process added in the meantime, nor two writers of one partition, where the last one has to win, nor rows
                # that are written already: whoever commits those looks at the table again.
                if not attempts_left:
                    raise
                table = self._created(schema, data)
            else:
                break
        self._seal(table, schema, before)
        forget(self.stored, schema.name, partition)
        table.update_incremental()
        return table.version()

    def remove(self, schema: TableSchema, **values: Collection[str]) -> None:
        """Remove all partitions whose columns have one of some values, in one commit; without any, there is none.

        Args:
            schema: the table.
            values: by partition column, those of the partitions to remove.
        """
        from deltalake.exceptions import CommitFailedError

        before: int | None = None
        for attempts_left in reversed(range(_CONFLICT_RETRIES + 1)):
            table = self.table(schema)
            if table is None:
                return
            before = table.version() if before is None else before
            try:
                if holds_partition(table, values):
                    drop(table, values)
            except CommitFailedError:
                if not attempts_left:
                    raise
            else:
                self._seal(table, schema, before)
                self._forget(schema, values)
                return

    def _forget(self, schema: TableSchema, values: Mapping[str, Collection[str]]) -> None:
        for damage in notes(self.stored):
            removed = (damage.partition.get(column) in allowed for column, allowed in values.items())
            if damage.table == schema.name and all(removed):
                forget(self.stored, schema.name, damage.partition)

    def read(
        self, schema: TableSchema, columns: Sequence[str] | None = None, **filters: str | Sequence[str]
    ) -> pl.DataFrame:
        """Return rows whose columns equal the given values (or one of them); no rows before the table exists.

        Raises:
            TableError: the table cannot be read.
        """
        table = self.table(schema)
        if table is None:
            frame = pl.from_arrow(schema.columns.empty_table())
            if not isinstance(frame, pl.DataFrame):
                raise TypeError(f"{schema.name}: expected a table, found {type(frame).__name__}")
            return frame.select(columns or schema.columns.names)
        scan = scan_table(table)
        for column, value in filters.items():
            values = [value] if isinstance(value, str) else list(value)
            scan = scan.filter(pl.col(column).is_in(values))
        files = data_files(table, schema, filters)
        hidden = hidden_rows(self.hidden, schema, files.values())
        if hidden is not None:
            scan = scan.filter(~hidden)
            files = {path: one for path, one in files.items() if not any(d.hides(schema, one) for d in self.hidden)}
        # A table that an earlier version of the project wrote lacks the columns that came later.
        present = scan.collect_schema().names()
        scan = scan.with_columns(pl.lit(None).alias(name) for name in schema.columns.names if name not in present)
        if self.is_local:
            for path in damaged_data_files(self.stored, iter(files)):
                raise self._data_damage(schema, path, files[path], OTHER_CONTENT)
        try:
            with panics_as_errors():
                return scan.select(columns or schema.columns.names).collect()
        except FileNotFoundError as error:
            path = next((path for path in files if not self.stored.has(path)), "")
            damage = self._noted(Damage(path, LOST, schema.name, files.get(path, {})))
            raise DamagedLakeError(
                f"the table {self.uri(schema)} has lost a data file; restore it, or delete the table and materialize "
                f"it again: {damage}"
            ) from error
        except (pl.exceptions.PolarsError, pa.ArrowException, OSError, UnreadableError) as error:
            for path, partition in files.items():
                if not self.stored.reads_as_parquet(path):
                    raise self._data_damage(schema, path, partition, unreadable(error)) from error
            if self.is_local:
                raise
            raise self.stored.interrupted(schema.name) from error

    def _data_damage(self, schema: TableSchema, path: str, partition: Mapping[str, str], what: str) -> DamagedLakeError:
        """Return the error for a data file of a table, and leave a note of it if the table still has it."""
        damage = Damage(path, what, schema.name, partition)
        table = self.table(schema)
        if table is not None and path in data_files(table, schema, partition):
            note(self.stored, damage)
        return damage.error(self.root)

    def _noted(self, damage: Damage) -> Damage:
        note(self.stored, damage)
        return damage

    @property
    def stored(self) -> StoredFiles:
        """The lake's files."""
        return StoredFiles(self.root, self.storage_options)

    @property
    def is_local(self) -> bool:
        """Whether the lake is a directory of this machine."""
        return self.stored.is_local

    @property
    def files(self) -> pafs.FileSystem:
        """The lake's files for pyarrow, by their paths relative to its root."""
        return self.stored.system

    def _created(self, schema: TableSchema, rows: pa.Table | WrittenRows) -> "DeltaTable":
        table = self.table(schema)
        if table is not None:
            return table
        from deltalake import DeltaTable

        remove_seals(self.stored, schema.name)
        with writing_to(self.uri(schema)):
            created = DeltaTable.create(
                self.uri(schema),
                schema=rows.schema,
                mode="ignore",
                partition_by=list(schema.partition_by),
                storage_options=dict(self.storage_options) or None,
            )
        self._seal(created, schema, -1)
        return created

    def _seal(self, table: "DeltaTable", schema: TableSchema, before: int) -> None:
        """Store the checksums of the commits since a version.

        One of them is the writer's own; it cannot tell which, where others wrote at the same time.
        """
        for version in range(before + 1, table.version() + 1):
            seal_commit(self.stored, schema.name, version, by_column=schema.open_columns is not None)
