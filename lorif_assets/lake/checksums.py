"""Checksums of content: in names of files, at the end of small files, and of the parts of a Parquet file.

They find what a disk, a cable or a copy changed; they are no protection against someone who changes a file and its checksum.
The hash is XXH3, 128 bits of whole files and 64 bits of parts, which takes a few percent of the time that reading takes.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

_Content = bytes | memoryview
_NAMED: Final = re.compile(r"-([0-9a-f]{32})(\.[a-z0-9]+)?$")
_SEAL_BYTES: Final = 16
# Reading more columns than this share of a file, its whole is hashed in one stretch.
_WIDE: Final = 0.5


def checksum(content: _Content) -> str:
    """Return the checksum of some content, 32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(content)


def named_checksum(name: str) -> str | None:
    """Return the checksum that the name of a file or folder ends with, before its suffix; None of one without."""
    found = _NAMED.search(name)
    return found[1] if found else None


def sealed(content: bytes) -> bytes:
    """Return content with its own checksum at the end."""
    return content + xxhash.xxh3_128_digest(content)


def unsealed(content: bytes) -> bytes | None:
    """Return what `sealed` was given, or None if it or its checksum changed since."""
    inner = content[:-_SEAL_BYTES]
    return inner if content == sealed(inner) else None


def sealed_parts(content: bytes) -> tuple[bytes, str]:
    """Return what `sealed` was given, as it is now, and the checksum that it was given then."""
    return content[:-_SEAL_BYTES], content[-_SEAL_BYTES:].hex()


@dataclass(frozen=True)
class ParquetChecksums:
    """Checksums of a Parquet file: of the whole, of its footer, and of each row group's part of each column.

    `bounds` are the first bytes of the parts in the order of the file, [groups * columns + 1], the last where the footer
    begins; `parts` their checksums, [groups * columns]. Without `columns` there are only those of whole and footer.
    """

    whole: str
    footer: str
    bounds: "np.ndarray[tuple[int], np.dtype[np.uint64]]"
    parts: "np.ndarray[tuple[int], np.dtype[np.uint64]]"
    columns: tuple[str, ...]

    @classmethod
    def of(cls, content: _Content, *, by_part: bool) -> "ParquetChecksums":
        """Return those of a file's content."""
        view = memoryview(content)
        metadata = pq.read_metadata(pa.BufferReader(pa.py_buffer(view)))
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        chunks = [group.column(at) for group in groups for at in range(group.num_columns)]
        starts = [
            min(chunk.data_page_offset, chunk.dictionary_page_offset or chunk.data_page_offset) for chunk in chunks
        ]
        end = max((start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True)), default=4)
        if not by_part:
            chunks, starts = [], []
        bounds = np.asarray([*starts, end], np.uint64)
        parts = np.asarray([xxhash.xxh3_64_intdigest(view[a:b]) for a, b in _pairs(bounds)], np.uint64)
        columns = tuple(chunk.path_in_schema for chunk in chunks[: metadata.num_columns])
        return cls(checksum(view), checksum(view[end:]), bounds, parts, columns)

    def to_bytes(self) -> bytes:
        """Return them as the content of a file."""
        header = {"whole": self.whole, "footer": self.footer, "columns": self.columns}
        return b"\n".join([json.dumps(header).encode(), self.bounds.tobytes() + self.parts.tobytes()])

    @classmethod
    def from_bytes(cls, content: bytes) -> "ParquetChecksums":
        """Return what `to_bytes` was given."""
        header, _, numbers = content.partition(b"\n")
        named = json.loads(header)
        values = np.frombuffer(numbers, np.uint64)
        n = len(values) // 2
        return cls(named["whole"], named["footer"], values[: n + 1], values[n + 1 :], tuple(named["columns"]))

    def fit(self, content: _Content) -> bool:
        """Whether a file's whole content is that of then."""
        return checksum(content) == self.whole

    def fit_footer(self, view: memoryview) -> bool:
        """Whether what follows the columns of a file, which says where they are, is that of then."""
        return checksum(view[int(self.bounds[-1]) :]) == self.footer

    def fit_columns(self, view: memoryview, columns: Collection[str], groups: Sequence[int] | None = None) -> bool:
        """Whether some columns of a file, in all row groups or some, are those of then; the fewest bytes are looked at."""
        wanted = [at for at, name in enumerate(self.columns) if name in columns]
        if not self.columns or (groups is None and len(wanted) > _WIDE * len(self.columns)):
            return self.fit(view)
        n = len(self.columns)
        chosen = range(len(self.parts) // n) if groups is None else groups
        bounds, parts = self.bounds, self.parts
        return all(
            xxhash.xxh3_64_intdigest(view[int(bounds[at]) : int(bounds[at + 1])]) == int(parts[at])
            for at in (group * n + column for group in chosen for column in wanted)
        )


def _pairs(bounds: "np.ndarray[tuple[int], np.dtype[np.uint64]]") -> Iterator[tuple[int, int]]:
    numbers = bounds.tolist()
    yield from pairwise(numbers)
