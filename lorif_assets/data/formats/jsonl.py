"""JSON Lines files, plain or gzipped: cut into slices of rows, and read leniently.

A row is a line that is not blank. Lines are cut at line feeds only: JSON may hold other line separators inside strings.
"""

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from lorif_assets.errors import SourceError

_UTF8_BOM = b"\xef\xbb\xbf"
_EXCERPT_LENGTH = 200


@dataclass(frozen=True)
class MalformedLine:
    """A line that is not a JSON object: its row in the shard, why, and how it begins."""

    row: int
    reason: str
    excerpt: str


@dataclass(frozen=True)
class LineSlice:
    """Consecutive rows of a file: the first one's number, its byte position (decompressed), and how many."""

    offset: int
    byte_offset: int
    rows: int


@lru_cache(maxsize=4096)
def slice_lines(path: Path, version: str, rows_per_slice: int) -> tuple[LineSlice, ...]:
    """Slices of a file; the file is read once per `version` (any string that changes with the file).

    Raises:
        SourceError: the file cannot be read or decompressed.
    """
    del version  # part of the cache's key only
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
        LineSlice(k * rows_per_slice, start, min(rows_per_slice, n_rows - k * rows_per_slice))
        for k, start in enumerate(starts)
    )


def read_lines(path: Path, byte_offset: int, rows: int) -> tuple[list[tuple[int, dict[str, Any]]], list[MalformedLine]]:
    """Up to `rows` rows from a byte position (of the decompressed file): (row, object) pairs, and malformed lines.

    Rows count from 0 at the position given, malformed ones included.

    Raises:
        SourceError: the file cannot be read or decompressed.
    """
    objects: list[tuple[int, dict[str, Any]]] = []
    malformed: list[MalformedLine] = []
    with _open(path) as file:
        file.seek(byte_offset)
        for row, line in enumerate(islice(filter(bytes.strip, file), rows)):
            parsed = _parse(line)
            if isinstance(parsed, dict):
                objects.append((row, parsed))
            else:
                malformed.append(MalformedLine(row, parsed, line.decode(errors="replace").strip()[:_EXCERPT_LENGTH]))
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
