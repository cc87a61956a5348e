"""A user's Delta table: its rows dealt to shards by their ids, read at the version at which they were listed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.content.columns import require_columns
from lorif_assets.data.formats.delta_buckets import BucketedTable
from lorif_assets.data.formats.delta_changes import Changes, bucket_sizes, incremental_changes
from lorif_assets.data.formats.limits import refuse_many
from lorif_assets.data.formats.paths import is_remote
from lorif_assets.data.formats.reader import RawShard, Reader, ShardSlice, SourceFile, state_of, version_of
from lorif_assets.errors import SourceError


class Delta(Reader):
    """Delta tables; costs the id column when a table has changed."""

    marks = ("_delta_log",)
    is_read_remotely = True

    def slices(self, source: Source, files: Sequence[SourceFile], base: Path) -> Iterator[ShardSlice]:
        """Yield the buckets that hold rows, named `<source>-<bucket>`.

        Raises:
            SourceError: a table cannot be read, lacks a column, or has more rows or columns than there may be.
        """
        for file in files:
            table = _bucketed(source, file.uri, base)
            state = table.version()
            columns = table.columns(state)
            require_columns(source.columns, columns, table.uri)
            sizes = bucket_sizes(table, state)
            refuse_many(table.uri, sum(sizes.values()), len(columns), source.limits)
            for bucket, rows in sizes.items():
                yield ShardSlice(
                    f"{file.shard_prefix}-{bucket:05d}",
                    source.name,
                    file.uri,
                    SourceFormat.DELTA,
                    version_of(state, source),
                    rows=rows,
                    bucket=bucket,
                )

    def read(self, source: Source, piece: ShardSlice, base: Path) -> RawShard:
        """Return the rows of one bucket.

        Raises:
            SourceError: the table cannot be read, or was created again in the meantime.
        """
        if piece.bucket is None:
            raise ValueError(f"the shard {piece.shard} of a Delta table has no bucket")
        table, state = _bucketed(source, piece.uri, base), state_of(piece.version)
        rows = table.rows(state, piece.bucket)
        return RawShard(f"{piece.uri}, bucket {piece.bucket}", table.columns(state), tuple(enumerate(rows)))

    def table(self, source: Source, piece: ShardSlice, base: Path) -> pa.Table:
        """Return the rows of one bucket with their types."""
        schema = _bucketed(source, piece.uri, base).schema(state_of(piece.version))
        rows = [values for _, values in self.read(source, piece, base).rows]
        return pa.Table.from_pylist(rows, schema=schema)

    def changes_since(self, source: Source, piece: ShardSlice, state: str, base: Path) -> Changes | None:
        """Return what the table's history says of all its shards."""
        return incremental_changes(_bucketed(source, piece.uri, base), state, state_of(piece.version))


READER = Delta()


def _bucketed(source: Source, uri: str, base: Path) -> BucketedTable:
    if source.columns.id is None:
        raise SourceError(
            f"source '{source.name}': a Delta table needs columns.id, the column with a unique id per row: it "
            "decides each row's shard."
        )
    where = uri if is_remote(uri) else str(base / uri)
    return BucketedTable.of(where, source.columns.id, source.buckets, source.revealed_storage_options)
