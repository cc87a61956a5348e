"""Megatron's indexed data sets, which NeMo and GPT-NeoX have too: an index (.idx) of documents whose tokens lie in a .bin.

The index is, in little endian: the mark MMIDIDX and two NULs, a version (uint64, 1), a code of the tokens' type (uint8), the
numbers of sequences and of ends of documents (uint64 each), each sequence's length (int32) and its first byte in the .bin
(int64), and the ends of documents, which are numbers of sequences from 0 on (int64)
(https://github.com/NVIDIA/Megatron-LM/blob/main/megatron/core/datasets/indexed_dataset.py). Where sequences have modes too, one
byte each behind that, they are of several kinds, of which only some are text.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int32, Int64

from lorif_assets.config.limits import ReadLimits
from lorif_assets.config.sources import SourceFormat
from lorif_assets.data.formats.contents import MEGATRON
from lorif_assets.data.formats.limits import refuse_large, refuse_many
from lorif_assets.data.formats.reader import (
    FileReader,
    FileSlice,
    MalformedRow,
    RawShard,
    ShardSlice,
    file_of_shard,
    slices_of,
)
from lorif_assets.errors import SourceError

_HEADER = struct.Struct("<9sQBQQ")
_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_TOKENS = ".bin"
_ID = "document"
_BYTES_IN_MEMORY = 8


class Megatron(FileReader):
    """Each document is a row of token ids, whose id is `<file>/<document>`; costs the index's header when it has changed."""

    kind = SourceFormat.MEGATRON
    suffixes = (".idx",)
    magic = MEGATRON
    is_made_of_rows = True

    def parts(self, uri: str) -> tuple[str, ...]:
        """Return the index, and the file of tokens beside it."""
        return (uri, uri[: -len(".idx")] + _TOKENS)

    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> Iterator[FileSlice]:
        """Yield the slices of one index."""
        return slices_of(_count(path, state, limits), rows_per_slice)

    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        """Return the documents of one slice."""
        rows: list[tuple[int, dict[str, object]]] = []
        malformed: list[MalformedRow] = []
        n_tokens = 0
        with _opened(path) as index:
            ends = index.ends(piece.offset, piece.rows)
            for row, (first, end) in enumerate(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)):
                document = f"document {piece.offset + row}"
                if not 0 <= first <= end <= index.n_sequences:
                    malformed.append(
                        MalformedRow(row, f"{document}: sequences {first} to {end} of {index.n_sequences}", "")
                    )
                    continue
                lengths, starts = index.sequences(first, end)
                last = starts + lengths.astype(np.int64) * index.tokens.itemsize
                if np.any(lengths < 0) or np.any(starts < 0) or np.any(last > index.n_bytes) or np.any(last < starts):
                    reason = (
                        f"{document}: its tokens would lie outside the {index.n_bytes:,} bytes of {path.stem}{_TOKENS}"
                    )
                    malformed.append(MalformedRow(row, reason, ""))
                    continue
                n_tokens += int(lengths.sum(dtype=np.int64))
                refuse_large(path, n_tokens * _BYTES_IN_MEMORY, limits)
                ids = [token for span in zip(starts.tolist(), last.tolist(), strict=True) for token in index.ids(*span)]
                name = f"{file_of_shard(piece.shard)}/{piece.offset + row}"
                rows.append((row, {_ID: name, "input_ids": ids}))
        return RawShard(piece.origin, (_ID, "input_ids"), tuple(rows), tuple(malformed), id_column=_ID)


READER = Megatron()


@dataclass(frozen=True)
class _Index:
    """An index of documents, and where their tokens are; neither is read but for what is asked for."""

    index: BinaryIO
    content: BinaryIO
    tokens: np.dtype[np.generic]
    n_sequences: int
    n_ends: int
    n_bytes: int

    def ends(self, first: int, n_documents: int) -> Int64[np.ndarray, " n"]:
        """Return the numbers of the sequences with which documents begin, and that behind the last one."""
        return _read(self.index, "<i8", _HEADER.size + 12 * self.n_sequences + 8 * first, n_documents + 1)

    def sequences(self, first: int, end: int) -> tuple[Int32[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """Return the lengths of sequences in tokens, and their first bytes."""
        begin = _HEADER.size
        lengths = _read(self.index, "<i4", begin + 4 * first, end - first)
        return lengths, _read(self.index, "<i8", begin + 4 * self.n_sequences + 8 * first, end - first)

    def ids(self, begin: int, end: int) -> list[int]:
        """Return the token ids between two bytes."""
        return _read(self.content, self.tokens, begin, (end - begin) // self.tokens.itemsize).tolist()


@lru_cache(maxsize=4096)
def _count(path: Path, state: str, limits: ReadLimits) -> int:
    del state  # part of the cache's key only
    with _opened(path) as index:
        n_documents = index.n_ends - 1
        refuse_many(path, n_documents, 0, limits)
        last = int(index.ends(n_documents, 0)[0])
        if last != index.n_sequences:
            raise ValueError(f"its documents end with sequence {last:,} of {index.n_sequences:,}")
        return n_documents


@contextmanager
def _opened(path: Path) -> Iterator[_Index]:
    try:
        with path.open("rb") as index, path.with_suffix(_TOKENS).open("rb") as content:
            yield _index(index, content)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path} cannot be read as a Megatron index: {error}. Check that it and {path.stem}{_TOKENS} are whole and of one "
            "another, or make them again"
        ) from error


def _index(index: BinaryIO, content: BinaryIO) -> _Index:
    header = index.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise ValueError(f"it has {len(header)} bytes, fewer than its header")
    magic, version, code, n_sequences, n_ends = _HEADER.unpack(header)
    if magic != MEGATRON:
        raise ValueError("it does not begin as one")
    if version != 1:
        raise ValueError(f"it is of version {version}, and version 1 is read")
    if code not in _TYPES:
        raise ValueError(f"its tokens are of the type {code}, which is no whole number")
    size, expected = _size(index), _HEADER.size + 12 * n_sequences + 8 * n_ends
    if size == expected + n_sequences and n_sequences:
        raise ValueError("its sequences have modes: it is of several kinds of content, and rows are read as text")
    if size != expected or not n_ends:
        raise ValueError(
            f"it has {size:,} bytes, and {expected:,} would hold {n_sequences:,} sequences and {n_ends:,} ends of documents"
        )
    return _Index(index, content, np.dtype(_TYPES[code]), n_sequences, n_ends, _size(content))


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _read(file: BinaryIO, kind: "str | np.dtype[np.generic]", begin: int, number: int) -> np.ndarray:
    file.seek(begin)
    return np.fromfile(file, kind, number)
