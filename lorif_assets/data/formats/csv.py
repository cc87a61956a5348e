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

from lorif_assets.config.sources import SourceFormat
from lorif_assets.data.columns import refuse_repeated_columns
from lorif_assets.data.formats.compression import beginning, opened, with_compressed
from lorif_assets.data.formats.contents import refuse_binary
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

    def cut(self, path: Path, state: str, rows_per_slice: int) -> tuple[FileSlice, ...]:
        """Return the slices of one file."""
        return _slices(path, state, rows_per_slice)

    def rows(self, path: Path, piece: ShardSlice) -> RawShard:
        """Return the rows of one slice."""
        with _records(path, 0) as records:
            header = records.header()
        with _records(path, piece.byte_offset) as records:
            found = list(islice(records, piece.rows))
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

    def __init__(self, file: BinaryIO, position: int, delimiter: str) -> None:
        self.start = self.position = position
        # The limit is the process's; by default a value has no more than 128 KiB.
        csv.field_size_limit(sys.maxsize)
        self._records = csv.reader(self._lines(file), delimiter=delimiter, strict=True)

    def __next__(self) -> list[str]:
        self.start = self.position
        return next(values for values in self._records if values)

    def header(self) -> tuple[str, ...]:
        return tuple(next(self, ()))

    def _lines(self, file: BinaryIO) -> Iterator[str]:
        for line in file:
            text = line.removeprefix(BOM_UTF8) if self.position == 0 else line
            self.position += len(line)
            yield text.decode(errors="surrogateescape")


@contextmanager
def _records(path: Path, position: int) -> Iterator[_Records]:
    delimiter = "\t" if path.name.lower().endswith(with_compressed(".tsv")) else ","
    with opened(path, position) as file:
        records = _Records(file, position, delimiter)
        try:
            yield records
        except csv.Error as error:
            raise SourceError(
                f"{path} cannot be read as CSV: {error}, in the row that begins at byte {records.start}. Values with quotes, "
                'delimiters or line ends stand between double quotes, and a quote in them is written "". Write the file again.'
            ) from error


@lru_cache(maxsize=4096)
def _slices(path: Path, state: str, rows_per_slice: int) -> tuple[FileSlice, ...]:
    del state  # part of the cache's key only
    refuse_binary(path, beginning(path, _BEGINNING), "CSV")
    starts: list[int] = []
    total = 0
    with _records(path, 0) as records:
        refuse_repeated_columns(records.header(), str(path))
        position = records.position
        for _ in records:
            if total % rows_per_slice == 0:
                starts.append(position)
            total += 1
            position = records.position
    return tuple(
        FileSlice(piece.offset, piece.rows, start)
        for piece, start in zip(slices_of(total, rows_per_slice), starts, strict=True)
    )
