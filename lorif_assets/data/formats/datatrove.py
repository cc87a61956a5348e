"""Tokens of datatrove, which nanotron trains on: documents one behind the other (.ds), and where each ends (.ds.index).

Tokens are uint16 or uint32 in little endian, ends are numbers of tokens from the beginning (uint64). Beside them may lie which
tokens carry loss, a byte each (.ds.loss)
(https://github.com/huggingface/datatrove/blob/main/src/datatrove/pipeline/tokens/tokenizer.py).
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lorif_assets.config.limits import ReadLimits
from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.formats.limits import refuse_large, refuse_many
from lorif_assets.data.formats.places import exists
from lorif_assets.data.formats.reader import (
    FileReader,
    FileSlice,
    MalformedRow,
    RawShard,
    ShardSlice,
    SourceFile,
    file_of_shard,
    slices_of,
)
from lorif_assets.errors import SourceError

_TOKENS, _ENDS, _LOSS = ".ds", ".index", ".loss"
_TYPES: Mapping[int, np.dtype[np.unsignedinteger]] = {2: np.dtype("<u2"), 4: np.dtype("<u4")}
_END = np.dtype("<u8")
_ID = "document"
_WITHOUT_LOSS = -100
_BYTES_IN_MEMORY = 16


class Datatrove(FileReader):
    """Each document is a row of token ids, whose id is `<file>/<document>`; costs the last end when a file has changed.

    A file whose tokens have marks of their loss is told by the file of these.
    """

    kind = SourceFormat.DATATROVE
    suffixes = (_TOKENS, _TOKENS + _LOSS)
    described_by = (_TOKENS + ".metadata",)
    is_made_of_rows = True

    def parts(self, uri: str) -> tuple[str, ...]:
        """Return a file of tokens, or of marks and the tokens that they are of, and the ends of its documents."""
        tokens = _without_loss(uri)
        return (*([] if tokens == uri else [uri]), tokens, tokens + _ENDS)

    def slices(self, source: Source, files: Sequence[SourceFile], base: Path) -> Iterator[ShardSlice]:
        """Yield each file's slices; marks beside a file are found where the path names the tokens alone."""
        counted, options = frozenset(self.counted([file.uri for file in files])), source.revealed_storage_options
        found = [_with_marks(file, base, options) for file in files if file.uri in counted]
        yield from super().slices(source, found, base)

    def counted(self, uris: Collection[str]) -> Sequence[str]:
        """Return files without the tokens of those that are marks."""
        marked = {_without_loss(uri) for uri in uris if uri != _without_loss(uri)}
        return [uri for uri in uris if uri not in marked]

    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> Iterator[FileSlice]:
        """Yield the slices of one file, and of each the furthest end before it."""
        total, furthest = _ends_before(path, state, rows_per_slice, limits)
        return slices_of(total, rows_per_slice, furthest)

    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        """Return the documents of one slice."""
        rows: list[tuple[int, dict[str, object]]] = []
        malformed: list[MalformedRow] = []
        n_tokens, furthest = 0, piece.byte_offset
        with _opened(path) as store:
            for row, (begin, end) in enumerate(pairwise(store.ends(piece.offset, piece.rows))):
                number = piece.offset + row
                # Behind an end that is wrong, so is where the next document begins.
                is_sound = furthest <= begin <= end <= store.n_tokens
                furthest = max(furthest, end if end <= store.n_tokens else 0)
                if not is_sound:
                    reason = (
                        f"document {number}: tokens {begin:,} to {end:,} of {store.n_tokens:,}, or of others behind one"
                    )
                    malformed.append(MalformedRow(row, reason, ""))
                    continue
                n_tokens += end - begin
                refuse_large(path, n_tokens * _BYTES_IN_MEMORY, limits)
                rows.append((row, {_ID: f"{file_of_shard(piece.shard)}/{number}", **store.document(begin, end)}))
            columns = (_ID, "input_ids", *(["labels"] if store.loss else []))
        return RawShard(piece.origin, columns, tuple(rows), tuple(malformed), id_column=_ID)


READER = Datatrove()


@dataclass(frozen=True)
class _Store:
    """Documents of tokens where they lie; none is read but those that are asked for."""

    tokens: BinaryIO
    index: BinaryIO
    loss: BinaryIO | None
    kind: np.dtype[np.unsignedinteger]
    n_documents: int
    n_tokens: int

    def ends(self, first: int, number: int) -> list[int]:
        """Return where documents end, and before them where the first one begins."""
        before = [0] if first == 0 else []
        return [*before, *_read(self.index, _END, first - 1 + len(before), number + 1 - len(before))]

    def document(self, begin: int, end: int) -> dict[str, list[int]]:
        """Return the tokens between two places; and labels, where they have marks of their loss."""
        ids = _read(self.tokens, self.kind, begin, end - begin)
        if self.loss is None:
            return {"input_ids": ids}
        marks = _read(self.loss, np.dtype("u1"), begin, end - begin)
        labels = [token if mark else _WITHOUT_LOSS for token, mark in zip(ids, marks, strict=True)]
        return {"input_ids": ids, "labels": labels}


@lru_cache(maxsize=4096)
def _ends_before(path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> tuple[int, tuple[int, ...]]:
    """Return the number of documents, and the furthest end of those before each slice; ends beyond the file are none."""
    del state  # part of the cache's key only
    furthest = [0]
    with _opened(path) as store:
        refuse_many(path, store.n_documents, 0, limits)
        for first in range(0, store.n_documents, rows_per_slice):
            ends = store.ends(first, min(rows_per_slice, store.n_documents - first))
            furthest.append(max([furthest[-1], *(end for end in ends if end <= store.n_tokens)]))
        return store.n_documents, tuple(furthest)


@contextmanager
def _opened(path: Path) -> Iterator[_Store]:
    tokens = path.with_name(_without_loss(path.name))
    try:
        with ExitStack() as files:
            paths = (tokens, tokens.with_name(tokens.name + _ENDS))
            content, index = (files.enter_context(one.open("rb")) for one in paths)
            loss = None if tokens == path else files.enter_context(path.open("rb"))
            yield _store(content, index, loss)
    except (OSError, ValueError) as error:
        raise SourceError(
            f"{path} cannot be read as tokens of datatrove: {error}. Check that it and the files of its name beside it are "
            "whole and of one another, or make them again"
        ) from error


def _store(tokens: BinaryIO, index: BinaryIO, loss: BinaryIO | None) -> _Store:
    size, size_of_index = _size(tokens), _size(index)
    n_documents, rest = divmod(size_of_index, _END.itemsize)
    if rest:
        raise ValueError(f"its index has {size_of_index:,} bytes, which are no whole number of ends")
    n_tokens = _read(index, _END, n_documents - 1, 1)[0] if n_documents else 0
    kind = next((kind for width, kind in _TYPES.items() if size == width * n_tokens), None)
    if kind is None:
        raise ValueError(f"its index ends with token {n_tokens:,}, and its {size:,} bytes are as many of no type")
    if loss is not None and _size(loss) != n_tokens:
        raise ValueError(f"it has {_size(loss):,} marks of loss for {n_tokens:,} tokens")
    return _Store(tokens, index, loss, kind, n_documents, n_tokens)


def _with_marks(file: SourceFile, base: Path, storage_options: Mapping[str, str]) -> SourceFile:
    marks = file.uri + _LOSS
    has_marks = file.uri == _without_loss(file.uri) and exists(marks, base, storage_options)
    return replace(file, uri=marks) if has_marks else file


def _without_loss(name: str) -> str:
    return name[: -len(_LOSS)] if name.lower().endswith(_LOSS) else name


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _read(file: BinaryIO, kind: np.dtype[np.unsignedinteger], first: int, number: int) -> list[int]:
    file.seek(first * kind.itemsize)
    return [int(one) for one in np.fromfile(file, kind, number)]
