"""Shards of MDS that are compressed by what mosaicml-streaming knows beside gzip and Zstandard: Brotli, bzip2 and Snappy."""

import bz2
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from lorif_assets.config.limits import ReadLimits
from lorif_assets.data.formats.compression import limited
from lorif_assets.data.formats.limits import beyond, largest_content

SUFFIXES = (".br", ".bz2", ".snappy")
# Of the size before a block of Snappy, which is less than 2^32, seven bits a byte.
_LONGEST_SIZE = 5


@contextmanager
def decompressed(path: Path, limits: ReadLimits) -> Iterator[BinaryIO]:
    """Open what a file holds whose name says how it is compressed.

    Raises:
        SourceError: it holds more than a compressed file may.
        OSError, ValueError: it cannot be read, or is not whole.
    """
    with path.open("rb") as stored, limited(path, _stream(path, stored, limits), limits) as file:
        try:
            yield file
        except EOFError as error:
            raise ValueError(f"what is compressed is not whole: {error}") from error


def _stream(path: Path, stored: BinaryIO, limits: ReadLimits) -> Any:
    match path.suffix.lower():
        case ".br":
            return pa.CompressedInputStream(stored, "brotli")
        case ".bz2":
            return bz2.open(stored)
        case _:
            return _snappy(path, stored.read(), limits)


def _snappy(path: Path, block: bytes, limits: ReadLimits) -> io.BytesIO:
    """Return what a block of Snappy holds, whose size stands before it.

    Source: https://github.com/google/snappy/blob/main/format_description.txt
    """
    size = 0
    for place, byte in enumerate(block[:_LONGEST_SIZE]):
        size |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    most, setting = largest_content(len(block), limits)
    if size > most:
        raise beyond(path, f"holds {size:,} bytes in {len(block):,} compressed ones", setting, limits)
    return io.BytesIO(pa.decompress(block, size, "snappy", asbytes=True))
