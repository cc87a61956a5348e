"""One shard's factors, opened: what is read of them is compared with its checksums first."""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from lorif_assets.errors import LorifError
from lorif_assets.lake.checksums import ParquetChecksums
from lorif_assets.lake.damage import OTHER_CONTENT, unreadable


class OpenFactors:
    """A Parquet file of factors; used as a context manager.

    Args:
        parquet: opens the file.
        view: its bytes; None where comparing them would read them twice.
        checksums: of the file; None where there are none.
        damage: makes the error for what is wrong with it.

    Raises:
        DamagedLakeError: its footer is not what was written, or cannot be read; the methods raise it of the columns.
    """

    def __init__(
        self,
        parquet: Callable[[], pq.ParquetFile],
        view: memoryview | None,
        checksums: ParquetChecksums | None,
        damage: Callable[[str], LorifError],
    ) -> None:
        self._view, self._checksums, self._damage = view, checksums, damage
        if view is not None and checksums is not None and not checksums.fit_footer(view):
            raise damage(OTHER_CONTENT)
        try:
            self._parquet = parquet()
        except (pa.ArrowException, OSError) as error:
            raise damage(unreadable(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._parquet.close()

    @property
    def metadata(self) -> pq.FileMetaData:
        """The footer."""
        return self._parquet.metadata

    @property
    def group_rows(self) -> list[int]:
        """The rows of each row group."""
        return [self.metadata.row_group(group).num_rows for group in range(self.metadata.num_row_groups)]

    def batches(self, rows: int, columns: Sequence[str], *, use_threads: bool) -> Iterator[pa.RecordBatch]:
        """Yield some columns in blocks of at most `rows` rows."""
        # A row group is compared just before its first row is decoded, which then finds it in the processor's cache.
        groups = iter(enumerate(accumulate(self.group_rows, initial=0)))
        group, first_row = next(groups)
        wanted, n = frozenset(columns), self.metadata.num_rows
        blocks = self._parquet.iter_batches(rows, columns=list(columns), use_threads=use_threads)
        for end in range(rows, n + rows, rows):
            while first_row < min(end, n):
                self._require_sound(wanted, group)
                group, first_row = next(groups)
            try:
                block = next(blocks, None)
            except (pa.ArrowException, OSError) as error:
                raise self._damage(unreadable(error)) from error
            if block is None:
                raise self._damage(f"ends before its {n} rows")
            yield block

    def row_groups(self, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Return some columns of some row groups."""
        wanted = frozenset(columns)
        for group in groups:
            self._require_sound(wanted, group)
        try:
            return self._parquet.read_row_groups(list(groups), columns=list(columns))
        except (pa.ArrowException, OSError) as error:
            raise self._damage(unreadable(error)) from error

    def _require_sound(self, columns: Collection[str], group: int) -> None:
        if self._view is None or self._checksums is None:
            return
        if not self._checksums.fit_columns(self._view, columns, group):
            raise self._damage(OTHER_CONTENT)
