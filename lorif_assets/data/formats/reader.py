"""What the reader of a format does, and what it gives: slices of a source's rows, and the raw rows of one."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pyarrow as pa

from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.limits import ReadLimits
from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.formats.delta_changes import Changes
from lorif_assets.data.formats.places import exists, joint_state, place_of, state_at
from lorif_assets.errors import SourceError

_EXCERPT_LENGTH = 200


@dataclass(frozen=True)
class SourceFile:
    """One file, Delta table or `datasets` directory of a source.

    `uri` is relative to the base folder where it lies inside it, or names repository, commit and path on the hub;
    `shard_prefix` is what its shard names begin with; `name` is its path below the source's folder, or what the file alone is
    called.
    """

    uri: str
    shard_prefix: str
    name: str


@dataclass(frozen=True)
class ShardSlice:
    """The rows of a source that make one shard."""

    shard: str  # partition key
    source: str
    uri: str  # file, `datasets` directory or Delta table; relative to the base folder where it lies inside it
    kind: SourceFormat
    version: str  # changes when what lies at `uri` is written, or the source's settings change
    rows: int
    offset: int = 0  # first row in the file
    byte_offset: int = 0  # where that row begins (formats of lines; in the decompressed file)
    bucket: int | None = None  # Delta only
    fault: str = ""  # why the file cannot be read; the piece then stands for all of it, and has no rows

    @property
    def origin(self) -> str:
        """The rows, for messages."""
        return f"{self.uri}, rows {self.offset} to {self.offset + self.rows - 1}"


@dataclass(frozen=True)
class MalformedRow:
    """Something in the place of a row that cannot be read as one: its row in the shard, why, and how it begins."""

    row: int
    reason: str
    excerpt: str


@dataclass(frozen=True)
class RowPart:
    """A row of the source's shard, or one of the sequences that are packed in it, numbered from 1."""

    row: int
    sequence: int | None = None

    def __str__(self) -> str:
        return f"{self.row:06d}" if self.sequence is None else f"{self.row:06d}#{self.sequence}"


@dataclass(frozen=True)
class RawShard:
    """Rows as they are in the source, with their position in the shard; malformed ones keep theirs.

    `file` is what they were read from, and `first_row` the position in it of the shard's first row, where it has one.
    `files` has that of each row, where a row is a whole file. `parts` says what each is of the source, where sequences that
    are packed in rows were made rows of their own; without it, each is the row of its position.
    """

    origin: str  # for messages
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, Any]], ...]
    malformed: tuple[MalformedRow, ...] = ()
    id_column: str | None = None  # of ids that the format gives, where the settings name no column
    file: str = ""
    first_row: int | None = None
    files: tuple[str, ...] = ()
    parts: tuple[RowPart, ...] = ()

    def part(self, row: int) -> RowPart:
        """Return what a row of the shard is of the source."""
        return self.parts[row] if self.parts else RowPart(row)

    def place(self, row: int) -> str:
        """Return where a person finds a row of the shard: the file and, counted from 0, its row there."""
        if self.files:
            return self.files[row]
        part = self.part(row)
        within = "" if part.sequence is None else f", sequence {part.sequence}"
        return (self.file if self.first_row is None else f"{self.file}, row {self.first_row + part.row}") + within

    @property
    def one_of_each_row(self) -> list[Mapping[str, Any]]:
        """Of each row of the source, its values, or those of the first sequence that was packed in it."""
        return [values for row, values in self.rows if self.part(row).sequence in (None, 1)]

    @property
    def sequences_in_a_row(self) -> float:
        """How many sequences are packed in a row of the source, on average of the whole shard; 1 where none are."""
        return len(self.parts) / len({part.row for part in self.parts}) if self.parts else 1.0


@dataclass(frozen=True)
class FileSlice:
    """Consecutive rows of a file: the first one's number, how many, and its byte position (decompressed), if it has one."""

    offset: int
    rows: int
    byte_offset: int = 0


class Reader(ABC):
    """Reads the sources of one format."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    """Of its files' names, in lower case; none where the format is one of directories."""
    marks: ClassVar[tuple[str, ...]] = ()
    """What a directory holds that is one source of this format; none where the format is one of files."""
    magic: ClassVar[bytes] = b""
    """How its files begin, where others have their ending too; empty where the ending says enough."""
    descriptions: ClassVar[tuple[str, ...]] = ()
    """Names of files beside its own that describe them, and hold no rows."""
    described_by: ClassVar[tuple[str, ...]] = ()
    """How names of files end that describe one of its own each, and hold no rows."""
    is_read_remotely: ClassVar[bool] = False
    """Whether a source may lie in an object store."""
    is_named: ClassVar[bool] = False
    """Whether the settings have to name the format, as files of its endings may be anything."""
    is_made_of_rows: ClassVar[bool] = False
    """Whether its files are what trainers make of rows: they count only if none of those are there, unless the settings name
    the format."""
    is_fallback: ClassVar[bool] = False
    """Whether its files count as data only if there are none of other formats, unless the settings name the format."""

    @abstractmethod
    def slices(self, source: Source, files: Sequence[SourceFile], base: Path) -> Iterator[ShardSlice]:
        """Yield the slices of a source that hold rows.

        Raises:
            SourceError: something cannot be read, or two files would share shard names.
        """

    @abstractmethod
    def read(self, source: Source, piece: ShardSlice, base: Path) -> RawShard:
        """Return the rows of one slice.

        Raises:
            SourceError: they cannot be read, or have changed since they were listed.
        """

    def table(self, source: Source, piece: ShardSlice, base: Path) -> pa.Table | None:
        """Return the rows of one slice with the types that they are stored in, in the order of `read`; None of text.

        Raises:
            SourceError: they cannot be read.
        """
        del source, piece, base
        return None

    def changes_since(self, source: Source, piece: ShardSlice, state: str, base: Path) -> Changes | None:
        """Return what happened to all shards since a state of one piece; None if only its version can say."""
        del source, piece, state, base
        return None

    def is_at(self, directory: Path) -> bool:
        """Whether a directory is one source of this format."""
        return bool(self.marks) and all((directory / mark).exists() for mark in self.marks)

    def parts(self, uri: str) -> tuple[str, ...]:
        """Return what a file consists of: itself, and those beside it that it cannot be read without."""
        return (uri,)

    def counted(self, uris: Collection[str]) -> Sequence[str]:
        """Return files without those that are a part or a copy of another one of them."""
        return tuple(uris)

    def is_description(self, name: str) -> bool:
        """Whether a file of this name describes others, and holds no rows."""
        return name in self.descriptions or name.lower().endswith(self.described_by)

    def suffix_of(self, path: Path) -> str:
        """Return the suffix by which a file's name says that it is of this format, or an empty text."""
        return next((suffix for suffix in self.suffixes if path.name.lower().endswith(suffix)), "")


class FileReader(Reader):
    """Reads sources of which each file, or each directory in the place of one, is cut into slices by itself.

    A file that cannot be read is one slice without rows, with its fault: the other files go on.
    """

    kind: ClassVar[SourceFormat]

    def slices(self, source: Source, files: Sequence[SourceFile], base: Path) -> Iterator[ShardSlice]:
        """Yield each file's slices; shards are named `<prefix of the file>-<slice>`.

        Raises:
            SourceError: two files would share shard names.
        """
        counted = frozenset(self.counted([file.uri for file in files]))
        files = [file for file in files if file.uri in counted]
        _refuse_shared_prefixes(source, files)
        for file in files:
            path = place_of(file.uri, base, source.revealed_storage_options)
            state = ""
            try:
                state = self._state(source, file.uri, base)
                slices = tuple(self.cut(path, state, source.rows_per_shard, source.limits))
            except SourceError as error:
                version = version_of(f"unreadable-{state}", source)
                yield ShardSlice(
                    slice_name(file, 0), source.name, file.uri, self.kind, version, rows=0, fault=str(error)
                )
                continue
            for k, rows in enumerate(slices):
                yield ShardSlice(
                    slice_name(file, k),
                    source.name,
                    file.uri,
                    self.kind,
                    version_of(state, source),
                    rows=rows.rows,
                    offset=rows.offset,
                    byte_offset=rows.byte_offset,
                )

    def read(self, source: Source, piece: ShardSlice, base: Path) -> RawShard:
        """Return the rows of one slice; only they are held in memory."""
        if piece.fault:
            raise SourceError(piece.fault)
        path = place_of(piece.uri, base, source.revealed_storage_options)
        if self._state(source, piece.uri, base) != state_of(piece.version):
            raise SourceError(f"{path} has changed since its shards were listed. List them again.")
        return self.rows(path, piece, source.limits)

    def state_file(self, path: Path) -> Path:
        """Return the file that is written whenever what lies at the path is."""
        return path

    def _state(self, source: Source, uri: str, base: Path) -> str:
        options = source.revealed_storage_options
        for part in self.parts(uri):
            if part != uri and not exists(part, base, options):
                name = PurePosixPath(part).name
                raise SourceError(f"{uri} cannot be read without {name}, which is not beside it: bring it there.")
        places = {part: place_of(part, base, options) for part in self.parts(uri)}
        return joint_state(state_at(part, self.state_file(place)) for part, place in places.items())

    @abstractmethod
    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> Iterable[FileSlice]:
        """Return the slices of one file; `state` changes with the file.

        Raises:
            SourceError: the file cannot be read, or is beyond the limits.
        """

    @abstractmethod
    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        """Return the rows of one slice of a file.

        Raises:
            SourceError: the file cannot be read, or is beyond the limits.
        """


def file_of_shard(shard: str) -> str:
    """Return what the shards of a file are named by, before their numbers."""
    return shard.rpartition("-")[0]


def slice_name(file: SourceFile, number: int) -> str:
    """Return the name of a file's shard."""
    return f"{file.shard_prefix}-{number:05d}"


def shard_of_objects(
    piece: ShardSlice, objects: Sequence[tuple[int, Mapping[str, Any]]], malformed: Sequence[MalformedRow]
) -> RawShard:
    """Return a slice of rows that may have different columns: those of the whole are those that any of them has."""
    columns = dict.fromkeys(chain.from_iterable(values for _, values in objects))
    return RawShard(piece.origin, tuple(columns), tuple(objects), tuple(malformed))


def excerpt_of(text: str) -> str:
    """Return how the text of a malformed row begins, in valid Unicode."""
    return text.strip()[:_EXCERPT_LENGTH].encode(errors="replace").decode()


def slices_of(total: int, rows_per_slice: int, starts: Iterable[int] = repeat(0)) -> Iterator[FileSlice]:
    """Yield so many rows in slices, which begin at these byte positions."""
    for offset, start in zip(range(0, total, rows_per_slice), starts, strict=False):
        yield FileSlice(offset, min(rows_per_slice, total - offset), start)


def version_of(state: str, source: Source) -> str:
    """Return a piece's version: the state of its file or table, and which settings cut and read it."""
    return f"{state} {content_hash(source.model_dump(mode='json', exclude=source.unversioned_fields))}"


def state_of(version: str) -> str:
    """Return the state in a piece's version."""
    return version.partition(" ")[0]


def _refuse_shared_prefixes(source: Source, files: Iterable[SourceFile]) -> None:
    first: dict[str, SourceFile] = {}
    for file in files:
        other = first.setdefault(file.shard_prefix, file)
        if other is not file:
            raise SourceError(
                f"source '{source.name}': {other.uri} and {file.uri} would both name their shards "
                f"'{file.shard_prefix}-...'. Remove one of them where it is a copy, or else rename it."
            )
