"""Training data and queries where the user keeps them: which shards a source has, and the raw rows of one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from lorif_assets.config.recipe import content_hash
from lorif_assets.config.sources import Columns, Source, SourceFormat
from lorif_assets.data.delta import BucketedTable
from lorif_assets.data.delta_changes import Changes, bucket_sizes, changes_followed
from lorif_assets.data.jsonl import MalformedLine, read_lines, slice_lines
from lorif_assets.data.parquet import count_dataset_rows, count_parquet_rows, read_dataset_rows, read_parquet_rows
from lorif_assets.data.paths import SourceFile, is_remote, locate
from lorif_assets.errors import SourceError


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
    byte_offset: int = 0  # where that row begins (JSONL; in the decompressed file)
    bucket: int | None = None  # Delta only


@dataclass(frozen=True)
class RawShard:
    """Rows as they are in the source, with their position in the shard; malformed lines keep theirs."""

    origin: str  # for messages
    columns: tuple[str, ...]
    rows: tuple[tuple[int, Mapping[str, Any]], ...]
    malformed: tuple[MalformedLine, ...] = ()


def list_shards(source: Source, base: Path) -> tuple[ShardSlice, ...]:
    """Shards of a source that hold rows, sorted by name.

    One file or `datasets` directory: `<source>-<slice>`. A directory or glob of files: `<source>-<relative path without
    suffix>-<slice>`, so neither a new file nor a file that grows renames a shard. A Delta table: `<source>-<bucket>`.
    Costs the footers of Parquet files, one pass over JSONL files and the id column of Delta tables; in one process each
    is read again only when it has changed.

    Raises:
        SourceError: nothing, mixed or unreadable files at the path, no rows, or a Delta source without an id column.
    """
    kind, files = locate(source, base)
    shards = sorted(
        chain.from_iterable(_slices(source, kind, file, base) for file in files),
        key=lambda piece: piece.shard,
    )
    if not shards:
        raise SourceError(f"source '{source.name}': {source.path} is empty: it has no rows.")
    return tuple(shards)


def list_all_shards(sources: Iterable[Source], base: Path) -> tuple[ShardSlice, ...]:
    """Shards of all sources, sorted by name.

    Raises:
        SourceError: as `list_shards`, or two sources would share a shard name.
    """
    shards: dict[str, ShardSlice] = {}
    for piece in chain.from_iterable(list_shards(source, base) for source in sources):
        other = shards.setdefault(piece.shard, piece)
        if other is not piece:
            raise SourceError(
                f"{other.uri} (source '{other.source}') and {piece.uri} (source '{piece.source}') would both be "
                f"shard '{piece.shard}'. Rename one of the sources."
            )
    return tuple(shards[name] for name in sorted(shards))


def read_shard(source: Source, piece: ShardSlice, base: Path) -> RawShard:
    """Raw rows of one shard; only the slice is held in memory.

    Raises:
        SourceError: a named column is not there, the file is unreadable, or it has changed since it was listed.
    """
    raw = _read(source, piece, base)
    if raw.rows:
        _require_columns(source.columns, raw.columns, raw.origin)
    return raw


def read_source(source: Source, base: Path) -> RawShard:
    """Every row of a source as one shard, numbered through. For query sets, which fit in memory.

    Raises:
        SourceError: as `list_shards` and `read_shard`.
    """
    rows: list[tuple[int, Mapping[str, Any]]] = []
    malformed: list[MalformedLine] = []
    columns: dict[str, None] = {}
    first = 0
    for piece in list_shards(source, base):
        raw = _read(source, piece, base)
        rows += ((first + row, values) for row, values in raw.rows)
        malformed += (replace(line, row=first + line.row) for line in raw.malformed)
        columns |= dict.fromkeys(raw.columns)
        first += piece.rows
    origin = f"source '{source.name}' ({source.path})"
    if rows:
        _require_columns(source.columns, tuple(columns), origin)
    return RawShard(origin, tuple(columns), tuple(rows), tuple(malformed))


def changes_since(source: Source, piece: ShardSlice, version: str, base: Path) -> Changes | None:
    """Return what a Delta table's history says of all its shards since a version of one piece.

    None where only the version itself can tell: for files, or where the source's settings have changed.
    """
    if piece.bucket is None or _version(_state(version), source) != version:
        return None
    return changes_followed(_bucketed(source, piece.uri, base), _state(version), _state(piece.version))


def _slices(source: Source, kind: SourceFormat, file: SourceFile, base: Path) -> Iterator[ShardSlice]:
    if kind is SourceFormat.DELTA:
        yield from _buckets(source, file, base)
        return
    path = base / file.uri
    state = _file_state(path)
    version = _version(state, source)
    if kind is SourceFormat.JSONL:
        for k, lines in enumerate(slice_lines(path, state, source.rows_per_shard)):
            yield ShardSlice(
                f"{file.shard_prefix}-{k:05d}",
                source.name,
                file.uri,
                kind,
                version,
                rows=lines.rows,
                offset=lines.offset,
                byte_offset=lines.byte_offset,
            )
        return
    total = count_parquet_rows(path, state) if kind is SourceFormat.PARQUET else count_dataset_rows(path)
    for k, offset in enumerate(range(0, total, source.rows_per_shard)):
        rows = min(source.rows_per_shard, total - offset)
        yield ShardSlice(f"{file.shard_prefix}-{k:05d}", source.name, file.uri, kind, version, rows=rows, offset=offset)


def _buckets(source: Source, file: SourceFile, base: Path) -> Iterator[ShardSlice]:
    table = _bucketed(source, file.uri, base)
    state = table.version()
    _require_columns(source.columns, table.columns(state), table.uri)
    for bucket, rows in bucket_sizes(table, state).items():
        yield ShardSlice(
            f"{file.shard_prefix}-{bucket:05d}",
            source.name,
            file.uri,
            SourceFormat.DELTA,
            _version(state, source),
            rows=rows,
            bucket=bucket,
        )


def _read(source: Source, piece: ShardSlice, base: Path) -> RawShard:
    origin = f"{piece.uri}, rows {piece.offset} to {piece.offset + piece.rows - 1}"
    path = base / piece.uri
    state = _state(piece.version)
    if piece.kind is not SourceFormat.DELTA and _file_state(path) != state:
        raise SourceError(f"{path} has changed since its shards were listed. List them again.")
    if piece.kind is SourceFormat.JSONL:
        objects, malformed = read_lines(path, piece.byte_offset, piece.rows)
        columns = dict.fromkeys(chain.from_iterable(values for _, values in objects))
        return RawShard(origin, tuple(columns), tuple(objects), tuple(malformed))
    if piece.bucket is not None:
        table = _bucketed(source, piece.uri, base)
        rows = table.rows(state, piece.bucket)
        return RawShard(f"{piece.uri}, bucket {piece.bucket}", table.columns(state), tuple(enumerate(rows)))
    read = read_parquet_rows if piece.kind is SourceFormat.PARQUET else read_dataset_rows
    table = read(path, piece.offset, piece.rows)
    return RawShard(origin, tuple(table.column_names), tuple(enumerate(table.to_pylist())))


def _bucketed(source: Source, uri: str, base: Path) -> BucketedTable:
    if source.columns.id is None:
        raise SourceError(
            f"source '{source.name}': a Delta table needs columns.id, the column with a unique id per row: rows are "
            "dealt to shards by it."
        )
    where = uri if is_remote(uri) else str(base / uri)
    return BucketedTable.of(where, source.columns.id, source.buckets, source.storage_options)


def _version(state: str, source: Source) -> str:
    """A piece's version: the state of its file or table, and which settings cut and read it."""
    return f"{state} {content_hash(source.model_dump(mode='json', exclude={'storage_options'}))}"


def _state(version: str) -> str:
    return version.partition(" ")[0]


def _file_state(path: Path) -> str:
    try:
        found = (path / "state.json" if path.is_dir() else path).stat()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}. List the source's shards again.") from error
    return f"{found.st_size}-{found.st_mtime_ns}"


def _require_columns(columns: Columns, available: tuple[str, ...], origin: str) -> None:
    named = [(name, role) for role, name in columns if isinstance(name, str)]
    named += [(name, "metadata") for name in columns.metadata or ()]
    missing = [f"'{name}' (columns.{role})" for name, role in named if name not in available]
    if missing:
        wanted = ", ".join(missing)
        raise SourceError(
            f"{origin}: no column {wanted}. The columns there are: {', '.join(available) or 'none'}. Correct the "
            "source's `columns`."
        )
