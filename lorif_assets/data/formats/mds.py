"""Shards of mosaicml-streaming (MDS): rows of typed columns, which each file describes itself.

A file is, in little endian: the number of rows (uint32), the byte at which each begins and that behind the last one (uint32
each), a description in JSON (the names, encodings and fixed sizes of the columns), and the rows. A row is the size of each of
its values whose column has no fixed one (uint32 each), and the values
(https://github.com/mosaicml/streaming/blob/main/streaming/base/format/mds/writer.py). Values of encodings that are no text,
numbers or arrays of numbers stay bytes: nothing is unpickled.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from lorif_assets.config.limits import MIB, ReadLimits
from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.content.columns import refuse_repeated_columns
from lorif_assets.data.formats import mds_compression
from lorif_assets.data.formats.compression import opened
from lorif_assets.data.formats.limits import beyond, refuse_large, refuse_many
from lorif_assets.data.formats.mds_arrays import array_column
from lorif_assets.data.formats.parquet import of_table
from lorif_assets.data.formats.places import place_of
from lorif_assets.data.formats.reader import FileReader, FileSlice, RawShard, ShardSlice, slices_of
from lorif_assets.errors import SourceError

_PLAIN = ".mds"
_COMPRESSED = (".gz", ".zstd", *mds_compression.SUFFIXES)
_TEXTS = ("str", "json", "str_int", "str_float", "str_decimal")
_NUMBERS: Mapping[str, str] = {
    "int": "<i8",
    **{f"{sign}int{bits}": f"<{sign or 'i'}{bits // 8}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
_ARRAYS = "ndarray"


class Mds(FileReader):
    """MDS; costs a file's offsets and description when it has changed, of a compressed one what lies before them."""

    kind = SourceFormat.MDS
    suffixes = (_PLAIN, *(_PLAIN + compressed for compressed in _COMPRESSED))
    descriptions = ("index.json",)
    is_made_of_rows = True

    def counted(self, uris: Collection[str]) -> Sequence[str]:
        """Return files without the compressed copies of others, as a loader keeps them beside these."""
        plain = {uri.lower() for uri in uris if uri.lower().endswith(_PLAIN)}
        return [uri for uri in uris if uri.lower() in plain or uri.lower().rpartition(".")[0] not in plain]

    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> Iterator[FileSlice]:
        """Yield the slices of one file."""
        return slices_of(_count(path, state, limits), rows_per_slice)

    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        """Return the rows of one slice."""
        return of_table(_read(path, piece.offset, piece.rows, limits), piece)

    def table(self, source: Source, piece: ShardSlice, base: Path) -> pa.Table:
        """Return the rows of one slice with their types."""
        path = place_of(piece.uri, base, source.revealed_storage_options)
        return _read(path, piece.offset, piece.rows, source.limits)


READER = Mds()


@dataclass(frozen=True)
class _Column:
    name: str
    encoding: str
    size: int | None

    def values(self, stored: Sequence[bytes]) -> pa.Array:
        """Return the values of rows.

        Raises:
            ValueError: they are not of the column's encoding.
        """
        kind, _, form = self.encoding.partition(":")
        if kind == _ARRAYS:
            return array_column(stored, form)
        if number := _NUMBERS.get(kind):
            if any(len(value) != np.dtype(number).itemsize for value in stored):
                raise ValueError(f"the column '{self.name}' has values of other sizes than {kind}")
            return pa.array(np.frombuffer(b"".join(stored), number))
        binary = pa.array(stored, pa.large_binary())
        # Text that is not UTF-8 concerns its row alone.
        return binary.view(pa.large_string()) if kind in _TEXTS else binary


@dataclass(frozen=True)
class _Header:
    offsets: Sequence[int]
    columns: tuple[_Column, ...]


@lru_cache(maxsize=4096)
def _count(path: Path, state: str, limits: ReadLimits) -> int:
    del state  # part of the cache's key only
    with _opened(path, limits) as file:
        header = _header(path, file, limits)
        if path.name.lower().endswith(_PLAIN) and path.stat().st_size != header.offsets[-1]:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, and its rows end at byte {header.offsets[-1]:,}")
        return len(header.offsets) - 1


def _read(path: Path, offset: int, rows: int, limits: ReadLimits) -> pa.Table:
    with _opened(path, limits) as file:
        header = _header(path, file, limits)
        starts = header.offsets[offset : offset + rows + 1]
        refuse_large(path, starts[-1] - starts[0], limits)
        if file.seekable():
            file.seek(starts[0])
        else:
            _exactly(file, starts[0] - header.offsets[0])
        content = _exactly(file, starts[-1] - starts[0])
    with _sound(path):
        stored = [
            _values(content[begin - starts[0] : end - starts[0]], header.columns, offset + row)
            for row, (begin, end) in enumerate(pairwise(starts))
        ]
        columns = zip(header.columns, zip(*stored, strict=True), strict=True)
        return pa.table({column.name: column.values(values) for column, values in columns})


def _values(row: bytes, columns: Sequence[_Column], number: int) -> list[bytes]:
    n_sizes = sum(column.size is None for column in columns)
    head = iter(np.frombuffer(row, "<u4", n_sizes).tolist() if len(row) >= 4 * n_sizes else ())
    sizes = [next(head, 0) if column.size is None else column.size for column in columns]
    if 4 * n_sizes + sum(sizes) != len(row):
        raise ValueError(f"row {number} has {len(row):,} bytes, and its columns take {4 * n_sizes + sum(sizes):,}")
    ends = np.cumsum([4 * n_sizes, *sizes]).tolist()
    return [row[begin:end] for begin, end in pairwise(ends)]


def _header(path: Path, file: BinaryIO, limits: ReadLimits) -> _Header:
    n_rows = int.from_bytes(_exactly(file, 4), "little")
    refuse_many(path, n_rows, 0, limits)
    offsets = np.frombuffer(_exactly(file, 4 * (n_rows + 1)), "<u4").tolist()
    begin = 4 + 4 * len(offsets)
    if not begin < offsets[0] or offsets != sorted(offsets):
        raise ValueError("its rows do not lie one behind the other")
    if offsets[0] - begin > limits.header_mib * MIB:
        raise beyond(path, f"has a description of {offsets[0] - begin:,} bytes", "header_mib", limits)
    columns = _columns(json.loads(_exactly(file, offsets[0] - begin)))
    refuse_many(path, 0, len(columns), limits)
    refuse_repeated_columns([column.name for column in columns], str(path))
    return _Header(offsets, columns)


def _columns(described: Any) -> tuple[_Column, ...]:
    if not isinstance(described, dict) or (described.get("format"), described.get("version")) != ("mds", 2):
        raise ValueError("it does not say that it is MDS of version 2")
    names, encodings = _list(described, "column_names", str), _list(described, "column_encodings", str)
    sizes = _list(described, "column_sizes", int | None)
    if not 0 < len(names) == len(encodings) == len(sizes):
        raise ValueError("it has other numbers of columns, of their encodings and of their sizes")
    if any(size is not None and size < 0 for size in sizes):
        raise ValueError("it has columns of negative sizes")
    # As the writer has it, zero is no fixed size.
    return tuple(_Column(name, code, size or None) for name, code, size in zip(names, encodings, sizes, strict=True))


def _list(described: Mapping[str, Any], name: str, kind: Any) -> list[Any]:
    entries = described.get(name)
    if not isinstance(entries, list) or not all(isinstance(entry, kind) for entry in entries):
        raise ValueError(f"its {name} are no list of {kind.__name__ if kind is str else 'numbers'}")
    return entries


def _exactly(file: BinaryIO, size: int) -> bytes:
    """Read so many bytes, and no more memory than there are."""
    content = bytearray()
    while len(content) < size:
        piece = file.read(min(MIB, size - len(content)))
        if not piece:
            raise ValueError(f"it ends after {len(content):,} of {size:,} bytes")
        content += piece
    return bytes(content)


@contextmanager
def _opened(path: Path, limits: ReadLimits) -> Iterator[BinaryIO]:
    # The first bytes are a number of rows, which may be those of gzip: only the name says what is compressed.
    with _sound(path), _content(path, limits) as file:
        yield file


def _content(path: Path, limits: ReadLimits) -> AbstractContextManager[BinaryIO]:
    if path.name.lower().endswith(_PLAIN):
        return path.open("rb")
    is_other = path.name.lower().endswith(mds_compression.SUFFIXES)
    return mds_compression.decompressed(path, limits) if is_other else opened(path, limits=limits)


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
        raise SourceError(f"{path} cannot be read as MDS: {error}. Write it again, or remove it.") from error
