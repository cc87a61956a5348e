"""JSON Lines files, plain or gzipped: cut into slices of rows, and read leniently.

A row is a line that is not blank. Lines are cut at line feeds only: JSON may hold other line separators inside strings.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from lorif_assets.config.sources import SourceFormat
from lorif_assets.data.formats.reader import FileReader, FileSlice, MalformedRow, RawShard, ShardSlice
from lorif_assets.errors import SourceError

_UTF8_BOM = b"\xef\xbb\xbf"
_EXCERPT_LENGTH = 200


class JsonLines(FileReader):
    """JSON Lines; costs one pass over a file when it has changed."""

    kind = SourceFormat.JSONL
    suffixes = (".jsonl", ".ndjson", ".jsonl.gz")

    def cut(self, path: Path, state: str, rows_per_slice: int) -> tuple[FileSlice, ...]:
        """Return the slices of one file."""
        return _slices(path, state, rows_per_slice)

    def rows(self, path: Path, piece: ShardSlice) -> RawShard:
        """Return the objects of one slice; their columns are those that any of them has."""
        objects, malformed = _read(path, piece.byte_offset, piece.rows)
        columns = dict.fromkeys(chain.from_iterable(values for _, values in objects))
        return RawShard(piece.origin, tuple(columns), tuple(objects), tuple(malformed))


READER = JsonLines()


@lru_cache(maxsize=4096)
def _slices(path: Path, state: str, rows_per_slice: int) -> tuple[FileSlice, ...]:
    del state  # part of the cache's key only
    starts: list[int] = []
    n_rows = 0
    with _open(path) as file:
        position = 0
        for line in file:
            if line.strip():
                if n_rows % rows_per_slice == 0:
                    starts.append(position)
                n_rows += 1
            position += len(line)
    return tuple(
        FileSlice(k * rows_per_slice, min(rows_per_slice, n_rows - k * rows_per_slice), start)
        for k, start in enumerate(starts)
    )


def _read(path: Path, byte_offset: int, rows: int) -> tuple[list[tuple[int, dict[str, Any]]], list[MalformedRow]]:
    """Up to `rows` rows from a byte position (of the decompressed file): (row, object) pairs, and malformed lines."""
    objects: list[tuple[int, dict[str, Any]]] = []
    malformed: list[MalformedRow] = []
    with _open(path) as file:
        file.seek(byte_offset)
        for row, line in enumerate(islice(filter(bytes.strip, file), rows)):
            parsed = _parse(line)
            if isinstance(parsed, dict):
                objects.append((row, parsed))
            else:
                malformed.append(MalformedRow(row, parsed, line.decode(errors="replace").strip()[:_EXCERPT_LENGTH]))
    return objects, malformed


def _parse(line: bytes) -> dict[str, Any] | str:
    """The line's object, or why there is none."""
    try:
        value = json.loads(line.removeprefix(_UTF8_BOM).decode())
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error.reason} at byte {error.start}"
    except json.JSONDecodeError as error:
        return f"malformed JSON: {error.msg} at character {error.pos}"
    except (ValueError, RecursionError) as error:
        return f"malformed JSON: {error}"
    return value if isinstance(value, dict) else f"a JSON object was expected, not {type(value).__name__}"


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    try:
        with cast("BinaryIO", gzip.open(path)) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read: {error}. Check that the file is complete.") from error
