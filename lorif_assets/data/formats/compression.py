"""Files of rows as they are, or compressed by gzip or Zstandard."""

import gzip
import io
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from lorif_assets.errors import SourceError

_GZIP = (".gz", b"\x1f\x8b")
_ZSTANDARD = (".zst", b"\x28\xb5\x2f\xfd")
_COMPRESSIONS = (_GZIP, _ZSTANDARD)
_CHUNK = 1 << 20


def with_compressed(*suffixes: str) -> tuple[str, ...]:
    """Return suffixes of files, followed by those of the same files compressed."""
    return suffixes + tuple(suffix + compressed for suffix in suffixes for compressed, _ in _COMPRESSIONS)


@contextmanager
def opened(path: Path, position: int = 0) -> Iterator[BinaryIO]:
    """Open a file at a position of what it holds, decompressed if its name or its first bytes say that it is compressed.

    Raises:
        SourceError: it cannot be read, or is not whole.
    """
    try:
        with path.open("rb") as stored, _decompressed(path, stored) as file:
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


def _decompressed(path: Path, stored: BinaryIO) -> BinaryIO:
    begin = stored.read(4)
    stored.seek(0)
    for compression in _COMPRESSIONS:
        suffix, magic = compression
        if path.name.lower().endswith(suffix) or begin.startswith(magic):
            if compression is _GZIP:
                return cast("BinaryIO", gzip.open(stored))
            return io.BufferedReader(pa.CompressedInputStream(stored, "zstd"), _CHUNK)
    return stored


def _skip(file: BinaryIO, position: int) -> None:
    # A Zstandard stream has no `seek`.
    while position > 0:
        if file.seekable():
            file.seek(position)
            return
        read = len(file.read(min(position, _CHUNK)))
        position = position - read if read else 0
