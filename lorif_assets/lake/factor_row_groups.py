"""Single rows of stored gradient factors: only the Parquet row groups that hold them are read."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from lorif_assets.lake.lake import FactorFile, Lake
from lorif_assets.lake.open_factors import OpenFactors


@dataclass(frozen=True)
class FactorRows:
    """Rows of one file, and the stored bytes that were read to have them."""

    batch: pa.RecordBatch
    bytes_read: int


def read_rows(lake: Lake, file: FactorFile, columns: Sequence[str], rows: Sequence[int]) -> FactorRows:
    """Return some rows of a shard's factors.

    Args:
        lake: where they are.
        file: the shard's file.
        columns: to read.
        rows: positions in the file, ascending, at least one.

    Raises:
        TableError: the file is gone.
    """
    with lake.open_factors(file) as parquet:
        counts = _row_counts(parquet)
        ends = np.cumsum(counts)
        group_of_row = np.searchsorted(ends, rows, side="right")
        groups = np.unique(group_of_row)
        # The groups that are read lie one after another: where each starts there, against where it starts in the file.
        starts_read = np.cumsum(counts[groups]) - counts[groups]
        shift = np.zeros(len(counts), dtype=np.int64)
        shift[groups] = starts_read - (ends - counts)[groups]
        table = parquet.row_groups(groups.tolist(), columns)
        chosen = table.take(pa.array(np.asarray(rows) + shift[group_of_row])).combine_chunks()
        return FactorRows(chosen.to_batches()[0], _bytes(parquet, groups.tolist(), columns))


def scan_bytes(lake: Lake, files: Sequence[FactorFile], columns: Sequence[str]) -> int:
    """Return the stored bytes that a scan of some columns of these files reads."""
    total = 0
    for file in files:
        with lake.open_factors(file) as parquet:
            total += _bytes(parquet, range(parquet.metadata.num_row_groups), columns)
    return total


def row_group_starts(lake: Lake, file: FactorFile) -> list[int]:
    """Return the first row of each row group of a file, and the number of its rows at the end."""
    with lake.open_factors(file) as parquet:
        return [0, *np.cumsum(_row_counts(parquet)).tolist()]


def _row_counts(parquet: OpenFactors) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    return np.asarray(parquet.group_rows, dtype=np.int64)


def _bytes(parquet: OpenFactors, groups: Sequence[int], columns: Sequence[str]) -> int:
    wanted = set(columns)
    first = parquet.metadata.row_group(0)
    indices = [i for i in range(first.num_columns) if first.column(i).path_in_schema in wanted]
    return sum(parquet.metadata.row_group(g).column(i).total_compressed_size for g in groups for i in indices)
