"""Parquet files and saved `datasets` directories: how many rows they have, and slices of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lorif_assets.errors import SourceError

_BATCH_ROWS = 1024


@lru_cache(maxsize=4096)
def count_parquet_rows(path: Path, version: str) -> int:
    """Rows of a Parquet file, from its footer; read once per `version` (any string that changes with the file).

    Raises:
        SourceError: not a readable Parquet file.
    """
    del version  # part of the cache's key only
    with _readable(path, "Parquet file"), pq.ParquetFile(path) as file:
        return int(file.metadata.num_rows)


def read_parquet_rows(path: Path, offset: int, rows: int) -> pa.Table:
    """Rows `offset` to `offset + rows` of a Parquet file; only the row groups that hold them are read, batch by batch.

    Raises:
        SourceError: not a readable Parquet file.
    """
    with _readable(path, "Parquet file"), pq.ParquetFile(path) as file:
        sizes = [file.metadata.row_group(k).num_rows for k in range(file.metadata.num_row_groups)]
        ends = list(accumulate(sizes))
        groups = [
            k
            for k, (size, end) in enumerate(zip(sizes, ends, strict=True))
            if end > offset and end - size < offset + rows
        ]
        position = ends[groups[0]] - sizes[groups[0]] if groups else 0
        pieces: list[pa.RecordBatch] = []
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups):
            first, last = max(offset - position, 0), min(offset + rows - position, len(batch))
            if first < last:
                pieces.append(batch.slice(first, last - first))
            position += len(batch)
            if position >= offset + rows:
                break
        return pa.Table.from_batches(pieces, schema=file.schema_arrow)


def count_dataset_rows(path: Path) -> int:
    """Rows of a directory written by `Dataset.save_to_disk`.

    Raises:
        SourceError: the directory cannot be loaded.
    """
    from datasets import Dataset  # slow to import, and few sources need it

    with _readable(path, "saved `datasets` directory"):
        if not json.loads((path / "state.json").read_text()).get("_data_files"):
            return 0  # `datasets` saves a dataset without rows, but fails to load it
        return int(Dataset.load_from_disk(str(path)).num_rows)


def read_dataset_rows(path: Path, offset: int, rows: int) -> pa.Table:
    """Rows `offset` to `offset + rows` of a saved dataset, as stored (images and audio are not decoded).

    Raises:
        SourceError: the directory cannot be loaded.
    """
    from datasets import Dataset  # slow to import, and few sources need it

    with _readable(path, "saved `datasets` directory"):
        return Dataset.load_from_disk(str(path)).with_format("arrow")[offset : offset + rows]


@contextmanager
def _readable(path: Path, kind: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as a {kind}: {error}. Write it again, or remove it.") from error
