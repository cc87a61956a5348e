"""A user's Delta table as a source: its rows dealt to buckets by a stable hash of their id.

Every bucket is a shard, so that editing, adding or deleting a row touches one shard, however the table's files are
rewritten. Reading a bucket scans the table once and keeps the bucket's rows only.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from lorif_assets.errors import SourceError


def table_version(uri: str, storage_options: Mapping[str, str] | None) -> str:
    """Newest version of the table, `<number>-<table id>`: a table made anew begins at number 0 again.

    Raises:
        SourceError: there is no readable Delta table.
    """
    with _readable(uri):
        table = DeltaTable(uri, storage_options=dict(storage_options or {}) or None)
        return f"{table.version()}-{table.metadata().id}"


def table_columns(uri: str, version: str, storage_options: Mapping[str, str] | None) -> tuple[str, ...]:
    """Names of the table's columns at a version."""
    with _readable(uri):
        return tuple(field.name for field in _open(uri, version, storage_options).schema().fields)


def bucket_sizes(
    uri: str, version: str, id_column: str, buckets: int, storage_options: Mapping[str, str] | None
) -> Mapping[int, int]:
    """Rows in each bucket that has any. Reads the id column, once per version of the table."""
    return _bucket_sizes(uri, version, id_column, buckets, tuple(sorted((storage_options or {}).items())))


def read_bucket(
    uri: str, version: str, id_column: str, *, bucket: int, buckets: int, storage_options: Mapping[str, str] | None
) -> list[dict[str, Any]]:
    """Rows of one bucket, in the order of their ids, which does not depend on the table's files."""
    rows: list[dict[str, Any]] = []
    for batch in _scan(uri, version, None, storage_options):
        for k, row_id in enumerate(batch.column(id_column).to_pylist()):
            if bucket_of(row_id, buckets) == bucket:
                rows += batch.slice(k, 1).to_pylist()  # `take` does not know the string views that scans give
    # Rows that share an id are ordered by their values: which of them comes first must not depend on the files.
    return sorted(rows, key=lambda row: (str(row[id_column]), repr(row)))


def bucket_of(row_id: object, buckets: int) -> int:
    """Bucket of an id, the same in every process and on every machine."""
    digest = blake2b(str(row_id).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % buckets


@lru_cache(maxsize=64)
def _bucket_sizes(
    uri: str, version: str, id_column: str, buckets: int, storage_options: tuple[tuple[str, str], ...]
) -> Mapping[int, int]:
    sizes: Counter[int] = Counter()
    for batch in _scan(uri, version, [id_column], dict(storage_options)):
        sizes.update(bucket_of(value, buckets) for value in batch.column(id_column).to_pylist())
    return dict(sorted(sizes.items()))


def _scan(
    uri: str, version: str, columns: list[str] | None, storage_options: Mapping[str, str] | None
) -> Iterator[pa.RecordBatch]:
    with _readable(uri):
        yield from pa.RecordBatchReader.from_stream(_open(uri, version, storage_options).scan(columns=columns))


def _open(uri: str, version: str, storage_options: Mapping[str, str] | None) -> DeltaTable:
    number, _, table_id = version.partition("-")
    table = DeltaTable(uri, version=int(number), storage_options=dict(storage_options or {}) or None)
    if str(table.metadata().id) != table_id:
        raise SourceError(f"{uri} was made anew since its shards were listed. List them again.")
    return table


@contextmanager
def _readable(uri: str) -> Iterator[None]:
    try:
        yield
    except (DeltaError, pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{uri} cannot be read as a Delta table: {error}. Check the path and, for an object store, the credentials."
        ) from error
