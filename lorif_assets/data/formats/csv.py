"""Tables as text, with commas (.csv) or tabs (.tsv) between values: the first row names the columns, every value is text.

Values may be quoted and hold line ends. A row with other than the header's number of values is set aside; a blank line is
no row. No more than a slice is held in memory.
"""

import csv
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from lorif_assets.config.limits import MIB, ReadLimits
from lorif_assets.config.sources import SourceFormat
from lorif_assets.data.content.columns import refuse_repeated_columns
from lorif_assets.data.formats.compression import beginning, opened, with_compressed
from lorif_assets.data.formats.contents import refuse_binary
from lorif_assets.data.formats.limits import beyond, bounded_lines, refuse_large, refuse_many
from lorif_assets.data.formats.reader import (
    FileReader,
    FileSlice,
    MalformedRow,
    RawShard,
    ShardSlice,
    excerpt_of,
    slices_of,
)
from lorif_assets.errors import SourceError

_BEGINNING = 1 << 10


class Csv(FileReader):
    """CSV and TSV; costs one pass over a file when it has changed."""

    kind = SourceFormat.CSV
    suffixes = with_compressed(".csv", ".tsv")
    # A table of statistics beside data is none.
    is_fallback = True

    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> tuple[FileSlice, ...]:
        """Return the slices of one file."""
        return _slices(path, state, rows_per_slice, limits)

    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        """Return the rows of one slice."""
        with _records(path, 0, limits) as records:
            header = records.header()
        found: list[list[str]] = []
        with _records(path, piece.byte_offset, limits) as records:
            for values in islice(records, piece.rows):
                found.append(values)
                refuse_large(path, records.position - piece.byte_offset, limits)
        malformed = tuple(
            MalformedRow(row, f"{len(values)} values, where the header has {len(header)}", excerpt_of(",".join(values)))
            for row, values in enumerate(found)
            if len(values) != len(header)
        )
        rows = tuple(
            (row, dict(zip(header, values, strict=True)))
            for row, values in enumerate(found)
            if len(values) == len(header)
        )
        return RawShard(piece.origin, header, rows, malformed)


READER = Csv()


class _Records(Iterator[list[str]]):
    """Rows of values from a position on; `start` is the byte position of the last one, `position` of the next one.

    Bytes that are not UTF-8 become lone surrogates, which the checks of a row's content find.
    """

    def __init__(self, path: Path, file: BinaryIO, position: int, delimiter: str, limits: ReadLimits) -> None:
        self.start = self.position = position
        self._path, self._limits = path, limits
        # This limit is the process's, and by default 128 KiB; that of a row is less.
        csv.field_size_limit(sys.maxsize)
        self._records = csv.reader(self._lines(file), delimiter=delimiter, strict=True)

    def __next__(self) -> list[str]:
        self.start = self.position
        return next(values for values in self._records if values)

    def header(self) -> tuple[str, ...]:
        return tuple(next(self, ()))

    def _lines(self, file: BinaryIO) -> Iterator[str]:
        most = self._limits.row_mib * MIB
        for line, length in bounded_lines(file, most):
            text = line.removeprefix(BOM_UTF8) if self.position == 0 else line
            self.position += length
            # A quote that is never closed would take all that follows into its row.
            if self.position - self.start > most:
                raise beyond(
                    self._path, f"has a longer row, which begins at byte {self.start}", "row_mib", self._limits
                )
            yield text.decode(errors="surrogateescape")


@contextmanager
def _records(path: Path, position: int, limits: ReadLimits) -> Iterator[_Records]:
    delimiter = "\t" if path.name.lower().endswith(with_compressed(".tsv")) else ","
    with opened(path, position, limits) as file:
        records = _Records(path, file, position, delimiter, limits)
        try:
            yield records
        except csv.Error as error:
            what = "a carriage return that no line feed follows" if "new-line character" in str(error) else str(error)
            raise SourceError(
                f"{path} cannot be read as CSV: {what}, in the row that begins at byte {records.start}. Values with quotes, "
                'delimiters or line ends stand between double quotes, and a quote in them is written "". Write the file again.'
            ) from error


@lru_cache(maxsize=4096)
def _slices(path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> tuple[FileSlice, ...]:
    del state  # part of the cache's key only
    refuse_binary(path, beginning(path, _BEGINNING), "CSV")
    starts: list[int] = []
    total = 0
    with _records(path, 0, limits) as records:
        header = records.header()
        refuse_many(path, 0, len(header), limits)
        refuse_repeated_columns(header, str(path))
        position = records.position
        for _ in records:
            if total % rows_per_slice == 0:
                starts.append(position)
            total += 1
            position = records.position
    refuse_many(path, total, 0, limits)
    return tuple(slices_of(total, rows_per_slice, starts))
