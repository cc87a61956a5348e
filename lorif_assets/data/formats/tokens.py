"""Flat streams of tokens: numbers one behind the other, in which a token that the settings name ends each document.

The type of the numbers is what the settings say, or the file itself where it begins with a header that does: NumPy's
(https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), or llm.c's of 256 numbers, of which the first two tell
the type and the third how many tokens follow (https://github.com/karpathy/llm.c/blob/master/dev/data/data_common.py).
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any, BinaryIO, cast

import numpy as np
from jaxtyping import Integer

from lorif_assets.config.limits import ReadLimits
from lorif_assets.config.sources import Source, SourceFormat, TokenType
from lorif_assets.data.formats.limits import refuse_large, refuse_many
from lorif_assets.data.formats.reader import (
    FileReader,
    FileSlice,
    RawShard,
    Reader,
    ShardSlice,
    SourceFile,
    file_of_shard,
    slices_of,
)
from lorif_assets.errors import SourceError

_NUMPY = b"\x93NUMPY"
_LLM_C = {(20_240_520, 1): "uint16", (20_240_801, 7): "uint32"}
_LLM_C_NUMBERS = 256
_AT_A_TIME = 1 << 22
# In no stream of tokens are numbers as small as upper halves of ids in every other place of so many, and larger ones between.
_LOOKED_AT, _LARGEST_HALF = 4096, 8
_ID = "document"
_BYTES_IN_MEMORY = 8


class Tokens(Reader):
    """Flat streams of tokens, cut where the source says that a document ends."""

    suffixes = (".bin", ".npy")
    is_named = True

    def slices(self, source: Source, files: Sequence[SourceFile], base: Path) -> Iterator[ShardSlice]:
        """Yield the slices of each file's documents."""
        return _Documents.of(source).slices(source, files, base)

    def read(self, source: Source, piece: ShardSlice, base: Path) -> RawShard:
        """Return the documents of one slice."""
        return _Documents.of(source).read(source, piece, base)


READER = Tokens()


@dataclass(frozen=True)
class _Stream:
    """A file of tokens: where they begin, of which type they are, and how many there are."""

    file: BinaryIO
    begin: int
    kind: np.dtype[np.integer]
    number: int

    def pieces(self, first: int) -> Iterator[Integer[np.ndarray, " n"]]:
        """Yield the tokens from one on, some at a time."""
        self.file.seek(self.begin + first * self.kind.itemsize)
        left = self.number - first
        while left > 0:
            piece = np.fromfile(self.file, self.kind, min(left, _AT_A_TIME))
            if not len(piece):
                raise ValueError(f"{left:,} of its tokens are not there any more")
            left -= len(piece)
            yield piece


@dataclass(frozen=True)
class _Documents(FileReader):
    """Each document is a row, whose id is `<file>/<document>`; costs one pass over a file when it has changed.

    A document is what stands behind the end of the one before, its own end with it. Ends with nothing before them are none.
    """

    token_type: TokenType | None
    end: int

    kind = SourceFormat.TOKENS

    @classmethod
    def of(cls, source: Source) -> "_Documents":
        """Return what reads a source."""
        # The settings see to it that there is one.
        return cls(source.token_type, cast("int", source.document_end))

    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> tuple[FileSlice, ...]:
        """Return the slices of one file."""
        return _slices(path, state, self.token_type, self.end, rows_per_slice, limits)

    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        """Return the documents of one slice."""
        rows: list[tuple[int, dict[str, object]]] = []
        with _opened(path, self.token_type) as stream:
            n_tokens = 0
            documents = _documents(path, stream, piece.byte_offset // stream.kind.itemsize, self.end, limits)
            for row, ids in zip(range(piece.rows), documents, strict=False):
                n_tokens += len(ids)
                refuse_large(path, n_tokens * _BYTES_IN_MEMORY, limits)
                rows.append((row, {_ID: f"{file_of_shard(piece.shard)}/{piece.offset + row}", "input_ids": ids}))
        return RawShard(piece.origin, (_ID, "input_ids"), tuple(rows), id_column=_ID)


@lru_cache(maxsize=4096)
def _slices(
    path: Path, state: str, token_type: TokenType | None, end: int, rows_per_slice: int, limits: ReadLimits
) -> tuple[FileSlice, ...]:
    del state  # part of the cache's key only
    starts: list[int] = []
    total = position = 0
    is_behind_end, has_end = True, False
    with _opened(path, token_type) as stream:
        for piece in stream.pieces(0):
            is_end = piece == end
            begins = ~is_end
            begins[1:] &= is_end[:-1]
            begins[0] &= is_behind_end
            places = np.flatnonzero(begins)
            starts += ((places[-total % rows_per_slice :: rows_per_slice] + position) * stream.kind.itemsize).tolist()
            total += len(places)
            position += len(piece)
            is_behind_end, has_end = bool(is_end[-1]), has_end or bool(is_end.any())
        if stream.number and not has_end:
            raise ValueError(
                f"the token {end} stands nowhere in its {stream.number:,} {stream.kind.name}: correct `document_end` or "
                "`token_type`"
            )
    refuse_many(path, total, 0, limits)
    return tuple(slices_of(total, rows_per_slice, starts))


def _documents(path: Path, stream: _Stream, first: int, end: int, limits: ReadLimits) -> Iterator[list[int]]:
    """Yield the documents from a token on, with which one begins."""
    waiting: list[Integer[np.ndarray, " n"]] = []
    for piece in stream.pieces(first):
        *ended, rest = np.split(piece, np.flatnonzero(piece == end) + 1)
        for part in ended:
            document = np.concatenate([*waiting, part])
            waiting = []
            if len(document) > 1:
                yield document.tolist()
        waiting.append(rest)
        refuse_large(path, sum(map(len, waiting)) * _BYTES_IN_MEMORY, limits)
    if left := [token for part in waiting for token in part.tolist()]:
        yield left


@contextmanager
def _opened(path: Path, token_type: TokenType | None) -> Iterator[_Stream]:
    try:
        with path.open("rb") as file:
            stream = _stream(path, file)
            if stream is None:
                yield _without_header(file, token_type)
            elif token_type is not None and stream.kind.newbyteorder("=") != np.dtype(token_type):
                raise ValueError(f"it says itself that it has {stream.kind.name}: leave `token_type` out")
            else:
                yield stream
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as a stream of tokens: {error}.") from error


def _stream(path: Path, file: BinaryIO) -> _Stream | None:
    """Return a stream whose beginning says what it is; None where it says nothing."""
    head = file.read(4 * _LLM_C_NUMBERS)
    size = os.fstat(file.fileno()).st_size
    if head.startswith(_NUMPY):
        array = _array(path)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise ValueError(
                f"it is an array of {array.ndim} dimensions of {array.dtype}: save its rows as Parquet, as `input_ids`"
            )
        stream = _Stream(file, int(array.offset), array.dtype, len(array))
    elif len(head) == 4 * _LLM_C_NUMBERS and int.from_bytes(head[:4], "little") in {magic for magic, _ in _LLM_C}:
        magic, version, number = np.frombuffer(head, "<i4", 3).tolist()
        if (magic, version) not in _LLM_C:
            raise ValueError(f"it is of llm.c's version {version}, which is not known")
        stream = _Stream(file, len(head), np.dtype(_LLM_C[magic, version]).newbyteorder("<"), number)
    else:
        return None
    if stream.number < 0 or stream.begin + stream.number * stream.kind.itemsize != size:
        raise ValueError(f"it has {size:,} bytes, and claims {stream.number:,} tokens of {stream.kind.name}")
    return stream


def _array(path: Path) -> np.memmap[Any, np.dtype[Any]]:
    try:
        return cast("np.memmap[Any, np.dtype[Any]]", np.load(path, mmap_mode="r", allow_pickle=False))
    except (OverflowError, SyntaxError, TokenError, RecursionError, MemoryError) as error:
        # NumPy reads the header as Python, and lets some of what may be wrong with that through.
        raise ValueError(f"its header cannot be read ({error})") from error


def _are_halves(numbers: Integer[np.ndarray, " n"]) -> bool:
    """Whether every other of the first numbers is as small as the upper halves of ids are, and the rest are ids."""
    lower, upper = numbers[::2], numbers[1::2]
    return (
        len(numbers) == _LOOKED_AT
        and 0 <= upper.min() <= upper.max() <= _LARGEST_HALF
        and (upper.max() == 0 or lower.max() > _LARGEST_HALF)
    )


def _without_header(file: BinaryIO, token_type: TokenType | None) -> _Stream:
    if token_type is None:
        raise ValueError("it does not say of which type its numbers are: set `token_type` to what was saved")
    kind, size = np.dtype(token_type).newbyteorder("<"), os.fstat(file.fileno()).st_size
    if size % kind.itemsize:
        raise ValueError(f"it has {size:,} bytes, which are no whole number of {token_type}")
    file.seek(0)
    if _are_halves(np.fromfile(file, kind, _LOOKED_AT)):
        raise ValueError(
            f"every other of its {token_type} is as good as 0, as halves of larger numbers are: correct `token_type`"
        )
    return _Stream(file, 0, kind, size // kind.itemsize)
