"""Parquet files: how many rows they have, and slices of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lorif_assets.config.limits import ReadLimits
from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.content.columns import refuse_repeated_columns
from lorif_assets.data.formats.contents import advice, is_parquet
from lorif_assets.data.formats.limits import beyond, refuse_large
from lorif_assets.data.formats.parquet_claims import refuse_claims, refuse_large_footer, rows_at_a_time
from lorif_assets.data.formats.places import place_of
from lorif_assets.data.formats.reader import FileReader, FileSlice, RawShard, ShardSlice, slices_of
from lorif_assets.data.rows.arrow_values import rows_of
from lorif_assets.errors import SourceError

_BATCH_ROWS = 1024


class Parquet(FileReader):
    """Parquet; costs a file's footer when it has changed."""

    kind = SourceFormat.PARQUET
    suffixes = (".parquet",)

    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> Iterator[FileSlice]:
        """Yield the slices of one file."""
        return slices_of(_count(path, state, limits), rows_per_slice)

    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        """Return the rows of one slice."""
        return of_table(_read(path, piece.offset, piece.rows, limits), piece)

    def table(self, source: Source, piece: ShardSlice, base: Path) -> pa.Table:
        """Return the rows of one slice with their types."""
        return _read(
            place_of(piece.uri, base, source.revealed_storage_options), piece.offset, piece.rows, source.limits
        )


READER = Parquet()


def of_table(table: pa.Table, piece: ShardSlice) -> RawShard:
    """Return the rows of a table as those of a slice."""
    return RawShard(piece.origin, tuple(table.column_names), tuple(enumerate(rows_of(table))))


def refuse_repeated_fields(schema: pa.Schema, origin: str) -> None:
    """Refuse a table in which several columns, or fields of a struct at any level, have one name.

    Raises:
        SourceError: it is one.
    """
    refuse_repeated_columns(schema.names, origin)
    for field in schema:
        _refuse_repeated_below(field.type, f"{origin}, column '{field.name}',")


def _refuse_repeated_below(kind: pa.DataType, origin: str) -> None:
    fields = [kind.field(k) for k in range(kind.num_fields)]
    if pa.types.is_struct(kind):
        refuse_repeated_columns([field.name for field in fields], origin)
    for field in fields:
        _refuse_repeated_below(field.type, origin)


@lru_cache(maxsize=4096)
def _count(path: Path, state: str, limits: ReadLimits) -> int:
    del state  # part of the cache's key only
    with _opened(path, limits) as file:
        refuse_claims(path, file.metadata, limits)
        refuse_repeated_fields(file.schema_arrow, str(path))
        return int(file.metadata.num_rows)


@contextmanager
def _opened(path: Path, limits: ReadLimits) -> Iterator[pq.ParquetFile]:
    with readable(path, "Parquet file"):
        refuse_large_footer(path, limits)
        try:
            # What the limit is on is each list of the footer: of columns and groups of them, of row groups.
            file = pq.ParquetFile(path, thrift_container_size_limit=limits.columns)
        except OSError as error:
            if "Exceeded size limit" in str(error):
                raise beyond(path, "has more columns, or more row groups", "columns", limits) from error
            raise
        with file:
            yield file


def _read(path: Path, offset: int, rows: int, limits: ReadLimits) -> pa.Table:
    """Rows `offset` to `offset + rows` of a Parquet file; only the row groups that hold them are read, batch by batch."""
    with _opened(path, limits) as file:
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
        ends = list(accumulate(sizes))
        groups = [
            k
            for k, (size, end) in enumerate(zip(sizes, ends, strict=True))
            if end > offset and end - size < offset + rows
        ]
        position = ends[groups[0]] - sizes[groups[0]] if groups else 0
        pieces: list[pa.RecordBatch] = []
        total = 0
        batch_rows = rows_at_a_time(path, file.metadata, groups, _BATCH_ROWS, limits)
        for batch in file.iter_batches(batch_size=batch_rows, row_groups=groups):
            first, last = max(offset - position, 0), min(offset + rows - position, len(batch))
            if first < last:
                pieces.append(batch.slice(first, last - first))
                total += pieces[-1].nbytes
                refuse_large(path, total, limits)
            position += len(batch)
            if position >= offset + rows:
                break
        found = sum(map(len, pieces))
        if found < rows:
            raise ValueError(f"of the {rows} rows from row {offset} on that its footer claims, {found} are there")
        return pa.Table.from_batches(pieces, schema=file.schema_arrow)


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Say in one way that something cannot be read as what it should be.

    Raises:
        SourceError: Arrow or the file system raised an error inside.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        what = f"It {advice(path)}" if path.is_file() and not is_parquet(path) else "Write it again, or remove it"
        raise SourceError(f"{path} cannot be read as a {kind}: {error}. {what}.") from error
