"""Parquet files that no library writes: footers of Thrift's compact protocol, made by hand."""

import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def write_deep_schema(path: Path, depth: int) -> None:
    """A column inside so many groups, and no rows."""
    group = b"\x35\x00\x18\x01s\x15\x02\x00"  # required, named s, of one child
    leaf = b"\x15\x02\x25\x00\x18\x01x\x00"  # INT32, required, named x
    schema = b"\x15\x02\x19\xfc" + _varint(depth + 1) + group * depth + leaf
    _write(path, schema + b"\x16\x00\x19\x0c\x00")


def write_claim(path: Path, rows: int) -> None:
    """A file of three rows whose footer claims others: 2 ** 40, say, in the file and in its row group."""
    pq.write_table(pa.table({"text": ["a", "b", "c"]}), path, store_schema=False, write_statistics=False)
    content = path.read_bytes()
    (size,) = struct.unpack("<I", content[-8:-4])
    footer = content[-8 - size : -8]
    # Fields 3 and 5 of the file's and the column's, 64 bits each: 3 rows, as Thrift writes it.
    assert footer.count(b"\x16\x06") >= 2
    claimed = footer.replace(b"\x16\x06", b"\x16" + _varint(2 * rows))
    path.write_bytes(content[: -8 - size] + claimed + struct.pack("<I", len(claimed)) + b"PAR1")


def _write(path: Path, footer: bytes) -> None:
    path.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")


def _varint(number: int) -> bytes:
    content = b""
    while number > 0x7F:
        content += bytes([number & 0x7F | 0x80])
        number >>= 7
    return content + bytes([number])
