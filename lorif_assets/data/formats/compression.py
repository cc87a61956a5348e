"""Files of rows as they are, or compressed by gzip or Zstandard."""

import gzip
import io
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa

from lorif_assets.config.limits import ReadLimits
from lorif_assets.data.formats.limits import beyond, largest_content
from lorif_assets.errors import SourceError

_GZIP = (".gz", b"\x1f\x8b")
_ZSTANDARD = (".zst", b"\x28\xb5\x2f\xfd")
_COMPRESSIONS = (_GZIP, _ZSTANDARD)
_CHUNK = 1 << 20


def with_compressed(*suffixes: str) -> tuple[str, ...]:
    """Return suffixes of files, followed by those of the same files compressed."""
    return suffixes + tuple(suffix + compressed for suffix in suffixes for compressed, _ in _COMPRESSIONS)


@contextmanager
def opened(path: Path, position: int = 0, limits: ReadLimits | None = None) -> Iterator[BinaryIO]:
    """Open a file at a position of what it holds, decompressed if its name or its first bytes say that it is compressed.

    Without limits, the reader has to know where to stop.

    Raises:
        SourceError: it cannot be read, or is not whole; or, while it is read, it holds more than a compressed file may.
    """
    try:
        with path.open("rb") as stored, _decompressed(path, stored, limits) as file:
            _skip(file, position)
            yield file
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise SourceError(f"{path} cannot be read: {error}. Check that the file is complete.") from error


def beginning(path: Path, size: int) -> bytes:
    """Return the first bytes of what a file holds, without a byte order mark and white space in front.

    Raises:
        SourceError: it cannot be read.
    """
    with opened(path) as file:
        return file.read(size).removeprefix(BOM_UTF8).lstrip()


def limited(path: Path, content: Any, limits: ReadLimits) -> BinaryIO:
    """Return a stream of what a compressed file holds, which ends with an error once that is more than it may be."""
    return io.BufferedReader(_Content(path, content, limits), _CHUNK)


class _Content(io.RawIOBase):
    """What a compressed file holds, until that is more than it may be."""

    def __init__(self, path: Path, stream: Any, limits: ReadLimits) -> None:
        self._path, self._stream, self._limits = path, stream, limits
        self._size = path.stat().st_size
        self._most, self._setting = largest_content(self._size, limits)
        self._n_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        content = self._stream.read(len(buffer))
        self._n_read += len(content)
        if self._n_read > self._most:
            found = f"holds more than {self._most:,} bytes in {self._size:,} compressed ones"
            raise beyond(self._path, found, self._setting, self._limits)
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _decompressed(path: Path, stored: BinaryIO, limits: ReadLimits | None) -> BinaryIO:
    begin = stored.read(4)
    stored.seek(0)
    for compression in _COMPRESSIONS:
        suffix, magic = compression
        if path.name.lower().endswith(suffix) or begin.startswith(magic):
            content = gzip.open(stored) if compression is _GZIP else pa.CompressedInputStream(stored, "zstd")  # noqa: SIM115
            if limits is not None:
                return limited(path, content, limits)
            return io.BufferedReader(cast("io.RawIOBase", content), _CHUNK)
    return stored


def _skip(file: BinaryIO, position: int) -> None:
    # What is decompressed has no `seek`.
    while position > 0:
        if file.seekable():
            file.seek(position)
            return
        read = len(file.read(min(position, _CHUNK)))
        position = position - read if read else 0
