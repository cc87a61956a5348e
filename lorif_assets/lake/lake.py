"""The lake: Delta tables under one root, local or in an object store, with atomic replacement of partitions.

Tables that fit in memory are read whole; gradient factors are streamed file by file, column by column. Dense tensors of
curvature states are safetensors files beside the tables, never overwritten, found through the row that points to them.
"""

import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from lorif_assets.config.secrets import MaskedError, kept_secret, secrets_of
from lorif_assets.errors import SettingsError, TableError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.delta_paths import refused_character, scan_table
from lorif_assets.lake.kept_reads import KeptReads
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.lake.table_writing import drop, holds_partition, overwrite

if TYPE_CHECKING:
    import torch
    from deltalake import DeltaTable

_CONFLICT_RETRIES = 10


@dataclass(frozen=True)
class FactorFile:
    """One shard's gradient factors in one version of the table: a Parquet file, relative to the table's root."""

    shard: str
    path: str
    rows: int


@dataclass(frozen=True)
class Lake:
    """All tables and tensors of a project, in a directory or at the URL of an object store with delta-rs's options.

    Raises:
        SettingsError: the directory's path has a character that no Delta table's can have.
    """

    root: str
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)
    kept: KeptReads | None = field(default=None, compare=False)
    """What is kept of its files in memory; None: nothing."""

    def __post_init__(self) -> None:
        character = refused_character(self.root)
        if character:
            raise SettingsError(
                f"the lake cannot lie in {self.root!r}: Delta tables have no local path with the character {character!r}; set "
                "`lake.root` to another directory"
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

    def table(self, schema: TableSchema) -> "DeltaTable | None":
        """Return the table at its newest version, or None before its first row.

        Raises:
            TableError: it cannot be read, or another writer left deletion vectors in it, which the streaming readers do
                not apply.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            with kept_secret(secrets_of(self.storage_options)):
                table = DeltaTable(self.uri(schema), storage_options=dict(self.storage_options) or None)
        except TableNotFoundError:
            return None
        except (DeltaError, OSError, MaskedError) as error:
            raise TableError(
                f"the table {self.uri(schema)} cannot be read; check `lake.root` and `lake.storage_options`: {error}"
            ) from error
        if "deletionVectors" in (table.protocol().reader_features or []):
            raise TableError(
                f"the table {self.uri(schema)} uses deletion vectors, so another program deleted rows of it; run "
                "`REORG TABLE ... APPLY (PURGE)` there, or delete the table and materialize it again"
            )
        return table

    def replace(self, schema: TableSchema, partition: Mapping[str, str], rows: pa.Table) -> int:
        """Replace one partition by these rows, atomically, and return the table's new version.

        Writers of different partitions do not disturb one another; a crash leaves the old rows or the new ones.

        Args:
            schema: the table.
            partition: a value for each of the table's partition columns.
            rows: the new rows; empty removes the partition.

        Raises:
            TableError: the rows have other columns or types than the table declares, or rows outside the partition.
        """
        from deltalake.exceptions import CommitFailedError

        data = conformed(schema, partition, rows)
        for attempts_left in reversed(range(_CONFLICT_RETRIES + 1)):
            table = self._created(schema, data)
            try:
                overwrite(table, schema, partition, data)
            except CommitFailedError:
                # delta-rs retries what other partitions' writers cause, but not the columns of new layers that another
                # process added in the meantime, nor two writers of one partition, where the last one has to win.
                if not attempts_left:
                    raise
            else:
                break
        table.update_incremental()
        return table.version()

    def remove(self, schema: TableSchema, **values: Collection[str]) -> None:
        """Remove all partitions whose columns have one of some values, in one commit; without any, there is none.

        Args:
            schema: the table.
            values: by partition column, those of the partitions to remove.
        """
        from deltalake.exceptions import CommitFailedError

        for attempts_left in reversed(range(_CONFLICT_RETRIES + 1)):
            table = self.table(schema)
            if table is None or not holds_partition(table, values):
                return
            try:
                drop(table, values)
            except CommitFailedError:
                if not attempts_left:
                    raise
            else:
                return

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
        # A table that an earlier version of the project wrote lacks the columns that came later.
        present = scan.collect_schema().names()
        scan = scan.with_columns(pl.lit(None).alias(name) for name in schema.columns.names if name not in present)
        try:
            return scan.select(columns or schema.columns.names).collect()
        except FileNotFoundError as error:
            raise TableError(
                f"the table {self.uri(schema)} has lost a data file; restore it, or delete the table and materialize "
                f"it again: {error}"
            ) from error

    def factor_files(self, checkpoint: str) -> list[FactorFile]:
        """Return the files of a checkpoint's gradient factors, in the order of their shards."""
        table = self.table(GRADIENT_FACTORS)
        if table is None:
            return []
        actions = pa.table(table.get_add_actions(flatten=True))
        actions = actions.filter(pc.equal(actions["partition.checkpoint"], checkpoint))
        return sorted(
            (
                FactorFile(row["partition.shard"], row["path"], row["num_records"])
                for row in actions.select(["partition.shard", "path", "num_records"]).to_pylist()
            ),
            key=lambda file: (file.shard, file.path),
        )

    def stream_factors(
        self, files: Sequence[FactorFile], columns: Sequence[str], rows: int
    ) -> Iterator[tuple[FactorFile, pa.RecordBatch]]:
        """Yield blocks of at most `rows` rows with the given columns only, file after file."""
        for file in files:

            def read(file: FactorFile = file) -> Iterator[pa.RecordBatch]:
                with self.open_factors(file) as parquet:
                    # For a short file, threads take longer to start than to read.
                    yield from parquet.iter_batches(rows, columns=list(columns), use_threads=file.rows >= rows)

            blocks = self.kept.columns(file.path, columns, rows, read) if self.kept else read()
            for batch in blocks:
                yield file, batch

    def write_tensors(self, folder: str, tensors: Mapping[str, "torch.Tensor"], name: str | None = None) -> str:
        """Write tensors to a safetensors file, with a new name unless one is given; return its path relative to the root."""
        from safetensors.torch import save

        path = f"{folder}/{name or uuid.uuid4().hex}.safetensors"
        self.write_file(path, save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))
        return path

    def write_file(self, path: str, content: bytes) -> str:
        """Write a file, for instance a report, replacing one of the same name, and return where it is."""
        if self.is_local:
            file = Path(self.root, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(f".{uuid.uuid4().hex}")
            partial.write_bytes(content)
            partial.replace(file)
        else:
            # delta-rs's streams take `bytes` only, which pyarrow hands on when it flushes a buffer, not when it writes
            # past one: all of the content has to fit in it.
            with self.files.open_output_stream(path, compression=None, buffer_size=len(content) + 1) as stream:
                stream.write(content)
        return f"{self.root.rstrip('/')}/{path}"

    def read_file(self, path: str) -> bytes:
        """Return the content of a file that `write_file` wrote.

        Raises:
            TableError: the file is gone.
        """
        try:
            with self.files.open_input_file(path) as stream:
                return bytes(stream.read())
        except FileNotFoundError as error:
            raise self._lost(path) from error

    def read_tensors(self, path: str) -> dict[str, "torch.Tensor"]:
        """Return the tensors of a file that `write_tensors` wrote.

        Raises:
            TableError: the file is gone or damaged.
        """
        return self.kept.tensors(path, lambda: self._loaded(path)) if self.kept else self._loaded(path)

    def _loaded(self, path: str) -> "dict[str, torch.Tensor]":
        from safetensors import SafetensorError
        from safetensors.torch import load, load_file

        try:
            # A local file is mapped into memory, which saves two copies of it.
            return load_file(Path(self.root, path)) if self.is_local else load(self.read_file(path))
        except FileNotFoundError as error:
            raise self._lost(path) from error
        except SafetensorError as error:
            raise TableError(
                f"the lake {self.root} holds damaged tensors in the file {path} that a row points to; materialize that row's "
                "partition again"
            ) from error

    def _lost(self, path: str) -> TableError:
        return TableError(
            f"the lake {self.root} has lost the file {path} that a row points to; materialize that row's partition again"
        )

    @property
    def is_local(self) -> bool:
        """Whether the lake is a directory of this machine."""
        return "://" not in self.root

    @property
    def files(self) -> pafs.FileSystem:
        """The lake's files, by their paths relative to its root."""
        if self.is_local:
            return pafs.SubTreeFileSystem(self.root, pafs.LocalFileSystem())
        from deltalake.fs import DeltaStorageHandler

        return pafs.PyFileSystem(DeltaStorageHandler(self.root, dict(self.storage_options) or None))

    def _created(self, schema: TableSchema, rows: pa.Table) -> "DeltaTable":
        table = self.table(schema)
        if table is not None:
            return table
        from deltalake import DeltaTable

        return DeltaTable.create(
            self.uri(schema),
            schema=rows.schema,
            mode="ignore",
            partition_by=list(schema.partition_by),
            storage_options=dict(self.storage_options) or None,
        )

    def open_factors(self, file: FactorFile) -> pq.ParquetFile:
        """Open one shard's factors; TableError if the file is gone."""
        from urllib.parse import unquote

        # Delta logs hold percent-encoded paths.
        path = f"{GRADIENT_FACTORS.name}/{unquote(file.path)}"
        try:
            if self.is_local:
                return pq.ParquetFile(f"{self.root}/{path}", memory_map=True)
            return pq.ParquetFile(self.files.open_input_file(path))
        except FileNotFoundError as error:
            raise TableError(
                f"the file {path} of the lake {self.root} is gone (vacuumed?); materialize `gradient_factors` for the "
                f"shard {file.shard!r} again"
            ) from error


def conformed(schema: TableSchema, partition: Mapping[str, str], rows: pa.Table) -> pa.Table:
    """Return the rows with the table's columns in their declared order and types.

    Raises:
        TableError: a column is missing, unknown or of another type, a row lies outside the partition, or the partition
            does not name every partition column.
    """
    if partition.keys() != set(schema.partition_by):
        raise TableError(
            f"a partition of {schema.name} is identified by {', '.join(schema.partition_by)}, found {', '.join(partition)}"
        )
    missing = [name for name in schema.columns.names if name not in rows.column_names]
    extra = [name for name in rows.column_names if name not in schema.columns.names]
    if missing or (extra and schema.open_columns is None):
        raise TableError(
            f"rows for the table {schema.name} "
            + (f"lack the column {missing[0]!r}" if missing else f"have the unknown column {extra[0]!r}")
            + f"; its columns are {', '.join(schema.columns.names)}"
        )
    target = pa.schema([*schema.columns, *(pa.field(name, schema.open_columns) for name in extra)])
    try:
        data = rows.select(target.names).cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise TableError(f"rows for the table {schema.name} do not have its types: {error}") from error
    for column, value in partition.items():
        found = [other for other in pc.unique(data[column]).to_pylist() if other != value]
        if found:
            raise TableError(f"rows for {schema.name} with {column} = {value!r} contain {column} = {found[0]!r}")
    return data
