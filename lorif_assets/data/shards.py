"""Training data and queries where the user keeps them: which shards a source has, and the raw rows of one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorif_assets.config.sources import Source
from lorif_assets.data.content.columns import require_columns
from lorif_assets.data.formats import readers
from lorif_assets.data.formats.delta_changes import Changes
from lorif_assets.data.formats.paths import is_remote, locate, passed_over
from lorif_assets.data.formats.reader import MalformedRow, RawShard, ShardSlice, state_of, version_of
from lorif_assets.data.packed_rows import unpacked
from lorif_assets.data.stored_tokens import with_token_ids
from lorif_assets.errors import SourceError

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class Survey:
    """What sources hold, as far as they can be read.

    `shards` are sorted by name; a file that cannot be read is one of them, with its fault. `faults` says why nothing of a
    source can be listed, by the source's name. `notes` say what is read twice.
    """

    shards: tuple[ShardSlice, ...]
    faults: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def unread_prefixes(self) -> tuple[str, ...]:
        """What names of shards begin with that may exist unlisted: their source or file cannot be read."""
        files = (piece.shard.rpartition("-")[0] for piece in self.shards if piece.fault)
        return tuple(f"{name}-" for name in (*self.faults, *files))


def survey(sources: Sequence[Source], base: Path) -> Survey:
    """Look at all sources: what cannot be read is told, and the others are listed.

    Raises:
        SourceError: nothing of any source can be listed.
    """
    shards: dict[str, ShardSlice] = {}
    errors: dict[str, SourceError] = {}
    for source in sources:
        try:
            pieces = {piece.shard: piece for piece in slices_of_source(source, base)}
            for shard in sorted(pieces.keys() & shards.keys()):
                _refuse_shared_name(shards[shard], pieces[shard])
        except SourceError as error:
            errors[source.name] = error
        else:
            shards |= pieces
    if errors and not shards:
        raise next(iter(errors.values()))
    listed = tuple(shards[name] for name in sorted(shards))
    return Survey(
        listed, {name: str(error) for name, error in errors.items()}, tuple(_read_twice(listed, sources, base))
    )


def _read_twice(pieces: Iterable[ShardSlice], sources: Iterable[Source], base: Path) -> Iterator[str]:
    """Yield what is read by two sources, or by one under two names, in words: each of its rows is two examples.

    Sources that take their content from different columns, as those of chosen and of rejected answers, read different things.
    """
    readings: dict[tuple[Path | str, frozenset[tuple[str, str]]], list[tuple[str, str]]] = {}
    content = {source.name: _content_columns(source) for source in sources}
    folders: dict[Path, Path] = {}
    for source, uri in dict.fromkeys((piece.source, piece.uri) for piece in pieces):
        file = uri if is_remote(uri) else _real(base / uri, folders)
        readings.setdefault((file, content[source]), []).append((source, uri))
    for found in readings.values():
        if len(found) > 1:
            names = " and ".join(f"{uri} of source '{source}'" for source, uri in found)
            yield f"{found[0][1]} is read {len(found)} times, as {names}: its rows are scored as often. Leave one of them out"


def _content_columns(source: Source) -> frozenset[tuple[str, str]]:
    """Return by role which columns hold a source's content, but for those that would without being named."""
    named = source.columns.model_dump(exclude={"id", "metadata"}, exclude_none=True)
    return frozenset((role, column) for role, column in named.items() if column != role)


def _real(file: Path, folders: dict[Path, Path]) -> Path:
    """Return where a file lies behind links; each folder is looked at once."""
    if file.is_symlink():
        return file.resolve()
    if file.parent not in folders:
        folders[file.parent] = file.parent.resolve()
    return folders[file.parent] / file.name


def list_shards(source: Source, base: Path) -> tuple[ShardSlice, ...]:
    """Shards of a source that hold rows, sorted by name; all of it can be read.

    Raises:
        SourceError: as `slices_of_source`, or a file cannot be read.
    """
    pieces = slices_of_source(source, base)
    for piece in pieces:
        if piece.fault:
            raise SourceError(piece.fault)
    return pieces


def slices_of_source(source: Source, base: Path) -> tuple[ShardSlice, ...]:
    """Shards of a source that hold rows, and files that cannot be read, sorted by name.

    One file or `datasets` directory: `<source>-<slice>`. A directory or glob of files: `<source>-<relative path without
    suffix>-<slice>`, so neither a new file nor a file that grows renames a shard. Files that are a row each:
    `<source>-<slice>`. A Delta table: `<source>-<bucket>`. Each format's reader says what this costs; within a process, a
    file is read again only when it has changed.

    Raises:
        SourceError: nothing or mixed files at the path, no rows, or a Delta source without an id column.
    """
    kind, files = locate(source, base)
    shards = sorted(readers()[kind].slices(source, files, base), key=lambda piece: piece.shard)
    if not shards:
        raise SourceError(f"source '{source.name}': {source.path} is empty: it has no rows.")
    return tuple(shards)


def passed_over_notice(source: Source, base: Path) -> str | None:
    """Return what a source's folder or pattern covers and is not read, as a sentence; None where that is nothing.

    Raises:
        SourceError: as `list_shards`.
    """
    names = passed_over(source, base)
    if not names:
        return None
    return (
        f"passed over in {source.path}: {in_short(names)}. Where that is data, make it a source of its own: a file or a "
        "folder is one, a linked one too"
    )


def in_short(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _refuse_shared_name(piece: ShardSlice, other: ShardSlice) -> None:
    if other is not piece:
        raise SourceError(
            f"{piece.uri} (source '{piece.source}') and {other.uri} (source '{other.source}') would both be "
            f"shard '{piece.shard}'. Rename one of the sources."
        )


def read_shard(source: Source, piece: ShardSlice, base: Path) -> RawShard:
    """Raw rows of one shard, with sequences that are packed in one as rows of their own; only the slice is held in memory.

    Raises:
        SourceError: a named column is missing, the file is unreadable, or it has changed since it was listed.
    """
    raw = readers()[piece.kind].read(source, piece, base)
    if raw.rows:
        require_columns(source.columns, raw.columns, raw.origin)
    raw = replace(raw, file=piece.uri, first_row=piece.offset if piece.bucket is None else None)
    return unpacked(with_token_ids(raw, source), source.columns, source.tokens_per_example)


def read_source(source: Source, base: Path) -> RawShard:
    """Every row of a source as one shard, numbered through. For query sets, which fit in memory.

    Raises:
        SourceError: as `list_shards` and `read_shard`.
    """
    rows: list[tuple[int, Mapping[str, Any]]] = []
    malformed: list[MalformedRow] = []
    columns: dict[str, None] = {}
    id_column = None
    first = 0
    for piece in list_shards(source, base):
        raw = readers()[piece.kind].read(source, piece, base)
        rows += ((first + row, values) for row, values in raw.rows)
        malformed += (replace(line, row=first + line.row) for line in raw.malformed)
        columns |= dict.fromkeys(raw.columns)
        id_column = raw.id_column
        first += piece.rows
    origin = f"source '{source.name}' ({source.path})"
    if rows:
        require_columns(source.columns, tuple(columns), origin)
    return RawShard(origin, tuple(columns), tuple(rows), tuple(malformed), id_column, source.path, 0)


def changes_since(source: Source, piece: ShardSlice, version: str, base: Path) -> Changes | None:
    """Return what a Delta table's history says of all its shards since a version of one piece.

    None where only the version itself says whether anything changed: for files, or if the source's settings have changed.
    """
    state = state_of(version)
    if version_of(state, source) != version:
        return None
    return readers()[piece.kind].changes_since(source, piece, state, base)
