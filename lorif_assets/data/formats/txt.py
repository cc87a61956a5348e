"""Plain text in UTF-8: a passage is a whole file, or the text between blank lines.

A file's byte order mark is left out, CR LF at the end of a line becomes LF, and blank lines around a passage are left out,
so that the same words are the same example however they were saved. A passage that cannot be used (not UTF-8, with NUL
characters, or larger than 16 MiB) is set aside with the reason; no more than one is held in memory while rows are counted.
"""

import os
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from lorif_assets.config.limits import ReadLimits
from lorif_assets.config.sources import Passages, Source, SourceFormat
from lorif_assets.data.formats.limits import refuse_large, refuse_many
from lorif_assets.data.formats.paths import locate
from lorif_assets.data.formats.places import place_of, state_at
from lorif_assets.data.formats.reader import (
    FileReader,
    FileSlice,
    MalformedRow,
    RawShard,
    Reader,
    ShardSlice,
    SourceFile,
    slices_of,
    state_of,
    version_of,
)
from lorif_assets.errors import SourceError
from lorif_assets.lake.file_samples import MARK, with_sample
from lorif_assets.lake.special_files import LFS_BEGINNING, LFS_POINTER

_LARGEST_PASSAGE = 16 << 20
_LONGEST_PIECE = 1 << 20
_EXCERPT_LENGTH = 200


class Text(Reader):
    """Plain text, cut into passages as the source says."""

    suffixes = (".txt",)
    # A README.txt beside data is not data.
    is_fallback = True

    def __init__(self) -> None:
        self._by_passages: Mapping[Passages, Reader] = {"file": _Files(), "paragraph": _Paragraphs()}

    def slices(self, source: Source, files: Sequence[SourceFile], base: Path) -> Iterator[ShardSlice]:
        """Yield slices of the files, in the order of their names, or of each file's paragraphs."""
        return self._by_passages[source.passages].slices(source, files, base)

    def read(self, source: Source, piece: ShardSlice, base: Path) -> RawShard:
        """Return the passages of one slice."""
        return self._by_passages[source.passages].read(source, piece, base)


class _Files(Reader):
    """Each file is a row, whose id is `<source>/<path>`; shards are named `<source>-<slice>`.

    A new file whose name sorts between others moves those after it by one row: their ids stay, their shards are read again.
    """

    def slices(self, source: Source, files: Sequence[SourceFile], base: Path) -> Iterator[ShardSlice]:
        for k, piece in enumerate(slices_of(len(files), source.rows_per_shard)):
            state = _state_of_all(
                files[piece.offset : piece.offset + piece.rows], base, source.revealed_storage_options
            )
            yield ShardSlice(
                f"{source.name}-{k:05d}",
                source.name,
                source.path,
                SourceFormat.TXT,
                version_of(state, source),
                rows=piece.rows,
                offset=piece.offset,
            )

    def read(self, source: Source, piece: ShardSlice, base: Path) -> RawShard:
        _, files = locate(source, base)
        chosen = files[piece.offset : piece.offset + piece.rows]
        if _state_of_all(chosen, base, source.revealed_storage_options) != state_of(piece.version):
            raise SourceError(
                f"files of {piece.uri} have changed since its shards were listed ({len(chosen)} from "
                f"{chosen[0].name if chosen else 'none'} on). List them again."
            )
        found: list[tuple[dict[str, str], str, bytes | SourceError | None]] = []
        total = 0
        for file in chosen:
            name = f"{source.name}/{file.name}"
            content: bytes | SourceError | None
            try:
                content = _whole(place_of(file.uri, base, source.revealed_storage_options))
            except SourceError as error:
                content = error
            found.append(({"id": name}, name, content))
            total += len(content) if isinstance(content, bytes) else 0
            refuse_large(piece.uri, total, source.limits)
        return replace(_shard(piece, found, id_column="id"), files=tuple(file.uri for file in chosen))


class _Paragraphs(FileReader):
    """Each paragraph is a row; costs one pass over a file when it has changed."""

    kind = SourceFormat.TXT

    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> tuple[FileSlice, ...]:
        return _slices(path, state, rows_per_slice, limits)

    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        found: list[bytes | None] = []
        total = 0
        with _opened(path) as file:
            for _, content in islice(_paragraphs(file, piece.byte_offset), piece.rows):
                found.append(content)
                total += len(content or b"")
                refuse_large(path, total, limits)
        return _shard(piece, [({}, f"paragraph {piece.offset + k}", content) for k, content in enumerate(found)])


READER = Text()


@lru_cache(maxsize=4096)
def _slices(path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> tuple[FileSlice, ...]:
    del state  # part of the cache's key only
    starts: list[int] = []
    total = 0
    with _opened(path) as file:
        for start, _ in _paragraphs(file, 0):
            if total % rows_per_slice == 0:
                starts.append(start)
            total += 1
    refuse_many(path, total, 0, limits)
    return tuple(slices_of(total, rows_per_slice, starts))


def _paragraphs(file: BinaryIO, start: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield where each paragraph from a position on begins, and its bytes; None where it is too large for a passage."""
    file.seek(start)
    lines: list[bytes] = []
    position, begin, size, starts_line = start, start, 0, True
    while piece := file.readline(_LONGEST_PIECE):
        text = piece.removeprefix(BOM_UTF8) if position == 0 else piece
        # Part of a longer line is never a blank line.
        is_line = starts_line and (piece.endswith(b"\n") or len(piece) < _LONGEST_PIECE)
        if is_line and not text.strip():
            if size:
                yield begin, _joined(lines, size)
            size, lines = 0, []
        else:
            begin = begin if size else position
            size += len(text)
            if size <= _LARGEST_PASSAGE:
                lines.append(text)
        position += len(piece)
        starts_line = piece.endswith(b"\n")
    if size:
        yield begin, _joined(lines, size)


def _joined(lines: Iterable[bytes], size: int) -> bytes | None:
    return b"".join(lines) if size <= _LARGEST_PASSAGE else None


def _whole(path: Path) -> bytes | None:
    """Return a file's bytes, or None where it is too large for a passage."""
    with _opened(path) as file:
        content = file.read(_LARGEST_PASSAGE + 1)
    return content.removeprefix(BOM_UTF8) if len(content) <= _LARGEST_PASSAGE else None


def _shard(
    piece: ShardSlice,
    passages: Sequence[tuple[dict[str, str], str, bytes | SourceError | None]],
    id_column: str | None = None,
) -> RawShard:
    """Return passages, each given by its other columns, what it is called and its bytes or what kept them from being read,
    as rows of a slice.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    malformed: list[MalformedRow] = []
    for row, (others, name, content) in enumerate(passages):
        text, reason = ("", str(content)) if isinstance(content, SourceError) else _decoded(content)
        if reason:
            begin = content[:_EXCERPT_LENGTH] if isinstance(content, bytes) else b""
            excerpt = begin.decode(errors="replace").strip()
            malformed.append(MalformedRow(row, f"{name}: {reason}", excerpt))
        else:
            rows.append((row, {**others, "text": text}))
    columns = ("text",) if id_column is None else (id_column, "text")
    return RawShard(piece.origin, columns, tuple(rows), tuple(malformed), id_column)


def _decoded(content: bytes | None) -> tuple[str, str]:
    """Return a passage's text, or why it is not text."""
    if content is None:
        most = _LARGEST_PASSAGE >> 20
        return "", f'larger than {most} MiB, the most of a passage; with passages = "paragraph", blank lines cut it'
    if content.startswith(LFS_BEGINNING):
        return "", LFS_POINTER
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        return "", f"not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8"
    if "\0" in text:
        return "", f"a NUL at character {text.index(chr(0))}: not plain text, or UTF-16; save it as UTF-8"
    return text.replace("\r\n", "\n").strip("\n"), ""


def _state_of_all(files: Iterable[SourceFile], base: Path, storage_options: Mapping[str, str]) -> str:
    digest, samples = blake2b(digest_size=16), blake2b(digest_size=8)
    for file in files:
        # A file's time says nothing of who may read it.
        path = place_of(file.uri, base, storage_options)
        unreadable = "" if not path.exists() or os.access(path, os.R_OK) else " unreadable"
        state, _, sample = state_at(file.uri, path).partition(MARK)
        digest.update(f"{file.name}\0{state}{unreadable}\0".encode(errors="surrogatepass"))
        samples.update(f"{sample}\0".encode())
    return with_sample(digest.hexdigest(), samples.hexdigest())


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}. Check the file and its permissions.") from error
