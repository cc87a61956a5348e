"""What a Parquet file's footer claims, held against itself and the limits before Arrow makes room for it.

Arrow follows a schema's groups by recursion, and ends the process where they are nested some thousand deep. It believes
the numbers of rows and values: a few bytes of a run-length code stand for as many as they claim.
"""

import struct
from pathlib import Path

import pyarrow.parquet as pq

from lorif_assets.config.limits import GIB, MIB, ReadLimits
from lorif_assets.data.formats.limits import beyond, refuse_many
from lorif_assets.data.rows.json_values import DEEPEST
from lorif_assets.errors import SourceError

_END = struct.Struct("<I4s")
_MAGIC = (b"PAR1", b"PARE")
# Bytes of a value in memory; of a text, those of its offset.
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}
_PAGE_TYPE_AND_SIZE = b"\x15"  # a 32-bit number, the field after the last one, as Thrift's compact protocol writes it
_PAGE_HEADER = 16


def refuse_large_footer(path: Path, limits: ReadLimits) -> None:
    """Refuse a file whose footer is larger than there may be.

    Raises:
        SourceError: it is.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        if file.seek(0, 2) < _END.size:
            return
        file.seek(-_END.size, 2)
        size, magic = _END.unpack(file.read(_END.size))
    if magic in _MAGIC and size > limits.header_mib * MIB:
        raise beyond(path, f"has, or claims to have, a footer of {size:,} bytes", "header_mib", limits)


def refuse_claims(path: Path, metadata: pq.FileMetaData, limits: ReadLimits) -> None:
    """Refuse a file that claims too much, or whose numbers of rows and values contradict one another.

    Raises:
        SourceError: it does.
    """
    refuse_many(path, metadata.num_rows, metadata.num_columns, limits)
    columns = [metadata.schema.column(k) for k in range(metadata.num_columns)]
    if any(column.path.count(".") > DEEPEST for column in columns):
        raise SourceError(f"{path} has columns nested more than {DEEPEST} deep. Write them flatter.")
    is_flat = [column.max_repetition_level == 0 for column in columns]
    widths = [_WIDTHS.get(column.physical_type) or max(column.length, 1) for column in columns]
    total = 0
    for k in range(metadata.num_row_groups):
        group = metadata.row_group(k)
        total += group.num_rows
        stored = expanded = 0
        for c, (flat, width) in enumerate(zip(is_flat, widths, strict=True)):
            chunk = group.column(c)
            if group.num_rows < 0 or chunk.num_values < 0 or (flat and chunk.num_values != group.num_rows):
                raise _contradicting(
                    path,
                    f"row group {k} has {group.num_rows} rows, its column '{chunk.path_in_schema}' {chunk.num_values}",
                )
            stored += max(chunk.total_compressed_size, 0)
            expanded += max(chunk.total_uncompressed_size, chunk.num_values * width)
        if expanded > max(GIB, limits.expansion * stored):
            raise beyond(path, f"has a row group of {expanded:,} bytes in {stored:,} stored ones", "expansion", limits)
    if total != metadata.num_rows:
        raise _contradicting(path, f"the file has {metadata.num_rows} rows, its row groups {total}")


def rows_at_a_time(path: Path, metadata: pq.FileMetaData, groups: list[int], most: int, limits: ReadLimits) -> int:
    """Return how many rows can be decoded at once though each holds the largest value that a dictionary stands for.

    Writers end dictionaries at about 1 MiB; a stranger's file may repeat one text of a GiB on all rows.
    """
    largest = 1
    with path.open("rb") as file:
        for k in groups:
            group = metadata.row_group(k)
            for c in range(metadata.num_columns):
                chunk = group.column(c)
                if chunk.physical_type == "BYTE_ARRAY" and chunk.dictionary_page_offset:
                    file.seek(chunk.dictionary_page_offset)
                    largest = max(largest, _page_size(file.read(_PAGE_HEADER)) or chunk.total_uncompressed_size)
    return min(most, max(1, limits.shard_mib * MIB // largest))


def _page_size(header: bytes) -> int | None:
    """Return the uncompressed size that a page's header says, or None where it begins otherwise."""
    numbers: list[int] = []
    at = 0
    while len(numbers) < 2:
        if header[at : at + 1] != _PAGE_TYPE_AND_SIZE:
            return None
        number = shift = 0
        at += 1
        while True:
            if at >= len(header):
                return None
            number |= (header[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not header[at - 1] & 0x80:
                break
        numbers.append((number >> 1) ^ -(number & 1))
    return numbers[1]


def _contradicting(path: Path, how: str) -> SourceError:
    return SourceError(f"{path} has a footer that contradicts itself: {how}. Write it again, or remove it.")
