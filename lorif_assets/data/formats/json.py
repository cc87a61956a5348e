"""JSON files: an array of rows, of which no more is held in memory than a slice, or JSON Lines by another name."""

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from lorif_assets.config.limits import MIB, ReadLimits
from lorif_assets.config.sources import SourceFormat
from lorif_assets.data.formats.compression import beginning, opened, with_compressed
from lorif_assets.data.formats.contents import refuse_binary
from lorif_assets.data.formats.jsonl import JsonLines
from lorif_assets.data.formats.limits import beyond, refuse_large, refuse_many
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
from lorif_assets.data.rows.json_values import DEEPEST, NestedTooDeepError, refuse_too_deep, unrepeated
from lorif_assets.errors import SourceError

_WINDOW = 1 << 20
_LONGEST_FIRST_LINE = 16 << 20
_EXCERPT = 1 << 10
_SPACE = re.compile(r"[ \t\n\r]*")
_STRICT = json.JSONDecoder(object_pairs_hook=unrepeated)
# A string, or one that does not end here.
_MARK = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*(?P<end>")?|[\[\]{}]', re.DOTALL)
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


class Json(FileReader):
    """JSON; costs one pass over a file when it has changed."""

    kind = SourceFormat.JSON
    suffixes = with_compressed(".json")
    # A dataset_info.json beside data is none.
    is_fallback = True

    def __init__(self) -> None:
        self._lines = JsonLines()

    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> tuple[FileSlice, ...]:
        """Return the slices of one file."""
        if _is_lines(path, state):
            return self._lines.cut(path, state, rows_per_slice, limits)
        return _slices(path, state, rows_per_slice, limits)

    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        """Return the objects of one slice; their columns are those that any of them has."""
        if beginning(path, _WINDOW).startswith(b"{"):
            return self._lines.rows(path, piece, limits)
        objects: list[tuple[int, dict[str, Any]]] = []
        malformed: list[MalformedRow] = []
        total = 0
        with _array(path, piece.byte_offset, limits) as array:
            for row in range(piece.rows):
                value = array.value() if array.has_more() else None
                total += array.length
                refuse_large(path, total, limits)
                if isinstance(value, ValueError):
                    malformed.append(MalformedRow(row, str(value), excerpt_of(array.excerpt)))
                elif isinstance(value, dict):
                    objects.append((row, value))
                else:
                    reason = f"a JSON object was expected, not {type(value).__name__}"
                    malformed.append(MalformedRow(row, reason, excerpt_of(array.excerpt)))
        return shard_of_objects(piece, objects, malformed)


READER = Json()


class _Array:
    """The elements of a JSON array, one after another, from the beginning of the file or from where one begins.

    `excerpt` is how the last one begins, `length` how many characters it has.

    Bytes that are not UTF-8 become lone surrogates, which the checks of a row's content find.
    """

    def __init__(self, path: Path, file: BinaryIO, position: int, limits: ReadLimits) -> None:
        self._path, self._file, self._limits = path, file, limits
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._text = ""
        self._at = 0
        self._before = position  # bytes before the text
        self._n_read = 0
        self.excerpt, self.length = "", 0
        if position == 0:
            self._begin()

    @property
    def position(self) -> int:
        """Byte position of what is read next."""
        return self._before + len(self._text[: self._at].encode(errors="surrogateescape"))

    def has_more(self) -> bool:
        """Go to the next element; False at the end of the array."""
        following = self._peek()
        if self._n_read and following == ",":
            self._at += 1
            self._peek()
            return True
        if following != "]":
            if self._n_read or not following:
                raise ValueError("a comma or the closing bracket was expected")
            return True
        self._at += 1
        if self._peek():
            raise ValueError("nothing was expected after the closing bracket")
        return False

    def value(self) -> Any:
        """Read the element; where it is JSON that cannot be taken (a repeated key, nested too deep, a number of thousands of
        digits), what is wrong takes its place.
        """
        while True:
            try:
                value, end = self._decoded()
            except json.JSONDecodeError as error:
                self._refuse_long(
                    len(self._text) - self._at, f"has a longer row, or one that is no JSON ({error.msg}),"
                )
                if not self._read_on():
                    raise ValueError(error.msg) from error
                continue
            # What ends where the text ends may go on: of 123, 12 is a number too.
            if end == len(self._text) and self._read_on():
                continue
            self.length = end - self._at
            self._refuse_long(self.length, "has a longer row,")
            self.excerpt = self._text[self._at : min(end, self._at + _EXCERPT)]
            self._at = end
            self._n_read += 1
            return value

    def _refuse_long(self, length: int, found: str) -> None:
        if length > self._limits.row_mib * MIB:
            raise beyond(self._path, f"{found} which begins at byte {self.position}", "row_mib", self._limits)

    def _decoded(self) -> tuple[Any, int]:
        try:
            value, end = _STRICT.raw_decode(self._text, self._at)
            if self._text.count("[", self._at, end) + self._text.count("{", self._at, end) > DEEPEST:
                refuse_too_deep(value)
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            return error, _end_of_value(self._text, self._at)
        except RecursionError:
            return NestedTooDeepError(), _end_of_value(self._text, self._at)
        return value, end

    def _begin(self) -> None:
        while not self._text and self._read_on():
            pass
        self._at = len(_BOM) if self._text.startswith(_BOM) else 0
        if self._peek() != "[":
            raise ValueError("an array of objects, or an object on each line, was expected")
        self._at += 1

    def _peek(self) -> str:
        """Return the next character that is no white space, without reading it; an empty text at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def _read_on(self) -> bool:
        # As much again as is held, so that a long element is not parsed from its beginning too often.
        more = self._file.read(max(_WINDOW, len(self._text) - self._at))
        self._before = self.position
        self._text = self._text[self._at :] + self._decode(more)
        self._at = 0
        return bool(more)


def _end_of_value(text: str, start: int) -> int:
    """Return where a list or object ends, without a call for each that is nested in it.

    Raises:
        json.JSONDecodeError: it does not end in the text.
    """
    depth = 0
    for mark in _MARK.finditer(text, start):
        if mark[0][0] == '"':
            if mark["end"] is None:
                break
            continue
        depth += 1 if mark[0] in "[{" else -1
        if not depth:
            return mark.end()
    raise json.JSONDecodeError("the closing bracket was expected", text, len(text))


@contextmanager
def _array(path: Path, position: int, limits: ReadLimits) -> Iterator[_Array]:
    array = None
    with opened(path, position, limits) as file:
        try:
            array = _Array(path, file, position, limits)
            yield array
        except (ValueError, RecursionError) as error:
            where = f"byte {array.position}" if array else "its beginning"
            raise SourceError(
                f"{path} is no JSON array of rows that can be read: at {where}, {error}. Write the file again, or save "
                "one object a line as .jsonl, where a faulty row is set aside by itself."
            ) from error


@lru_cache(maxsize=4096)
def _is_lines(path: Path, state: str) -> bool:
    del state  # part of the cache's key only
    first = beginning(path, _LONGEST_FIRST_LINE)
    refuse_binary(path, first, "JSON")
    if first.startswith(b"{"):
        _refuse_single_object(path, first)
    return not first or first.startswith(b"{")


@lru_cache(maxsize=4096)
def _slices(path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> tuple[FileSlice, ...]:
    del state  # part of the cache's key only
    starts: list[int] = []
    total = 0
    with _array(path, 0, limits) as array:
        while array.has_more():
            if total % rows_per_slice == 0:
                starts.append(array.position)
            array.value()
            total += 1
    refuse_many(path, total, 0, limits)
    return tuple(slices_of(total, rows_per_slice, starts))


def _refuse_single_object(path: Path, first: bytes) -> None:
    line, _, rest = first.partition(b"\n")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    arrays = [name for name, inner in value.items() if isinstance(inner, list)] if isinstance(value, dict) else []
    holds_rows = any(isinstance(inner, dict) for name in arrays for inner in value[name][:1])
    if value is None or (len(value) == 1 and holds_rows and not rest.strip()):
        field = f" (that of {arrays[0]!r})" if arrays else ""
        raise SourceError(
            f"{path} is one JSON object, not rows. Save the array of rows that it holds{field} as a file of its own, or one "
            "object a line."
        )
