"""JSON Lines files, plain or compressed: cut into slices of rows, and read leniently.

A row is a line that is not blank. Lines are cut at line feeds only: JSON may hold other line separators inside strings.
"""

import json
from codecs import BOM_UTF8
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from lorif_assets.config.limits import MIB, ReadLimits
from lorif_assets.config.sources import SourceFormat
from lorif_assets.data.formats.compression import beginning, opened, with_compressed
from lorif_assets.data.formats.contents import refuse_binary
from lorif_assets.data.formats.limits import bounded_lines, refuse_large, refuse_many, too_long
from lorif_assets.data.formats.reader import (
    FileReader,
    FileSlice,
    MalformedRow,
    RawShard,
    ShardSlice,
    excerpt_of,
    shard_of_objects,
    slices_of,
)
from lorif_assets.data.rows.json_values import RepeatedKeyError, parsed_json
from lorif_assets.errors import SourceError

_LONGEST_FIRST_LINE = 1 << 20
_EXCERPT = 1 << 10


class JsonLines(FileReader):
    """JSON Lines; costs one pass over a file when it has changed."""

    kind = SourceFormat.JSONL
    suffixes = with_compressed(".jsonl", ".ndjson")

    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> tuple[FileSlice, ...]:
        """Return the slices of one file."""
        return _slices(path, state, rows_per_slice, limits)

    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        """Return the objects of one slice; their columns are those that any of them has."""
        objects, malformed = _read(path, piece.byte_offset, piece.rows, limits)
        return shard_of_objects(piece, objects, malformed)


READER = JsonLines()


@lru_cache(maxsize=4096)
def _slices(path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> tuple[FileSlice, ...]:
    del state  # part of the cache's key only
    _refuse_other_content(path)
    starts: list[int] = []
    n_rows = 0
    with opened(path, 0, limits) as file:
        position = 0
        for line, length in bounded_lines(file, limits.row_mib * MIB):
            if _is_row(line, length):
                if n_rows % rows_per_slice == 0:
                    starts.append(position)
                n_rows += 1
            position += length
    refuse_many(path, n_rows, 0, limits)
    return tuple(slices_of(n_rows, rows_per_slice, starts))


def _is_row(line: bytes, length: int) -> bool:
    return length > len(line) or bool(line.strip())


def _read(
    path: Path, byte_offset: int, rows: int, limits: ReadLimits
) -> tuple[list[tuple[int, dict[str, Any]]], list[MalformedRow]]:
    """Up to `rows` rows from a byte position (of the decompressed file): (row, object) pairs, and malformed lines."""
    objects: list[tuple[int, dict[str, Any]]] = []
    malformed: list[MalformedRow] = []
    most, total = limits.row_mib * MIB, 0
    with opened(path, byte_offset, limits) as file:
        lines = ((line, length) for line, length in bounded_lines(file, most) if _is_row(line, length))
        for row, (line, length) in enumerate(islice(lines, rows)):
            parsed = too_long(limits) if length > most else _parse(line)
            total += len(line) if isinstance(parsed, dict) else 0
            refuse_large(path, total, limits)
            if isinstance(parsed, dict):
                objects.append((row, parsed))
            else:
                malformed.append(MalformedRow(row, parsed, excerpt_of(line[:_EXCERPT].decode(errors="replace"))))
    return objects, malformed


def _parse(line: bytes) -> dict[str, Any] | str:
    """The line's object, or why there is none."""
    try:
        value = parsed_json(line.removeprefix(BOM_UTF8).decode())
    except UnicodeDecodeError as error:
        return f"not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8"
    except json.JSONDecodeError as error:
        return f"malformed JSON: {error.msg} at character {error.pos}"
    except RepeatedKeyError as error:
        return str(error)
    except ValueError as error:
        return f"malformed JSON: {error}"
    return value if isinstance(value, dict) else f"a JSON object was expected, not {type(value).__name__}"


def _refuse_other_content(path: Path) -> None:
    first = beginning(path, _LONGEST_FIRST_LINE)
    refuse_binary(path, first, "JSON Lines")
    if not first.startswith(b"["):
        return
    line, _, rest = first.partition(b"\n")
    try:
        json.loads(line)
        is_row = bool(rest.strip())
    except RecursionError:
        is_row = bool(rest.strip())
    except ValueError:
        is_row = False
    if is_row:  # a faulty one, set aside by itself
        return
    raise SourceError(
        f"{path} is a JSON array, not JSON Lines, which have one object a line. Rename it to "
        f"{path.name.partition('.')[0]}.json, or save one object a line."
    )
