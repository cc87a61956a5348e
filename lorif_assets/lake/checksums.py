"""Checksums of content: in names of files, at the end of small files, and of the parts of a Parquet file.

They find what a disk, a cable or a copy changed; they are no protection against someone who changes a file and its checksum.
The hash is XXH3, 128 bits of whole files and 64 bits of parts, which takes a few percent of the time that reading takes.
"""

import json
import re
from collections.abc import Collection, Sequence
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
# Of more columns than this share of a file, a row group is hashed in one stretch.
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


_Numbers = np.ndarray[tuple[int], np.dtype[np.uint64]]


@dataclass(frozen=True)
class ParquetChecksums:
    """Checksums of a Parquet file: of the whole, of its footer, of each row group, and of a row group's part of each column.

    `bounds` are the first bytes of the parts in the order of the file, [groups * columns + 1], the last where the footer
    begins; `parts` their checksums, [groups * columns], and `groups` those of the row groups, [groups]. Without `columns`
    there are only those of whole and footer.
    """

    whole: str
    footer: str
    bounds: _Numbers
    parts: _Numbers
    groups: _Numbers
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
        columns = tuple(chunk.path_in_schema for chunk in chunks[: metadata.num_columns])
        bounds = [*starts, end]
        return cls(
            checksum(view),
            checksum(view[end:]),
            np.asarray(bounds, np.uint64),
            _sums(view, bounds),
            _sums(view, bounds[:: len(columns)] if columns else []),
            columns,
        )

    def to_bytes(self) -> bytes:
        """Return them as the content of a file."""
        header = {"whole": self.whole, "footer": self.footer, "columns": self.columns}
        return b"\n".join(
            [json.dumps(header).encode(), b"".join(one.tobytes() for one in (self.bounds, self.parts, self.groups))]
        )

    @classmethod
    def from_bytes(cls, content: bytes) -> "ParquetChecksums":
        """Return what `to_bytes` was given."""
        header, _, numbers = content.partition(b"\n")
        named = json.loads(header)
        values, per_group = np.frombuffer(numbers, np.uint64), len(named["columns"])
        n = (len(values) - 1) // (2 * per_group + 1) * per_group
        bounds, parts, groups = np.split(values, [n + 1, 2 * n + 1])
        return cls(named["whole"], named["footer"], bounds, parts, groups, tuple(named["columns"]))

    def fit(self, content: _Content) -> bool:
        """Whether a file's whole content is that of then."""
        return checksum(content) == self.whole

    def fit_footer(self, view: memoryview) -> bool:
        """Whether what follows the columns of a file, which says where they are, is that of then."""
        return checksum(view[int(self.bounds[-1]) :]) == self.footer

    def fit_columns(self, view: memoryview, columns: Collection[str], group: int) -> bool:
        """Whether some columns of a row group are those of then.

        Of few columns, nothing else is looked at; of many, the whole group in one stretch. Without checksums of parts, the
        whole file.
        """
        if not self.columns:
            return self.fit(view)
        first = group * len(self.columns)
        wanted = [first + at for at, name in enumerate(self.columns) if name in columns]
        if len(wanted) > _WIDE * len(self.columns):
            stretch = view[int(self.bounds[first]) : int(self.bounds[first + len(self.columns)])]
            return xxhash.xxh3_64_intdigest(stretch) == int(self.groups[group])
        return all(
            xxhash.xxh3_64_intdigest(view[int(self.bounds[at]) : int(self.bounds[at + 1])]) == int(self.parts[at])
            for at in wanted
        )


def _sums(view: memoryview, bounds: Sequence[int]) -> _Numbers:
    """Return the checksums of the stretches between bounds."""
    return np.asarray([xxhash.xxh3_64_intdigest(view[start:end]) for start, end in pairwise(bounds)], np.uint64)
