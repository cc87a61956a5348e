"""Query sets as files: each file of the query path is one set, named after the file.

Parquet and JSON Lines are; JSON and CSV where none of those lie beside them, as for training data.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorif_assets.config.settings import Settings
from lorif_assets.config.sources import Columns, Source, SourceFormat
from lorif_assets.data.formats import format_of_suffix, readers
from lorif_assets.data.formats.lakehouse_tables import TableFolder, table_among, table_around
from lorif_assets.data.shards import list_shards, read_source
from lorif_assets.errors import SourceError, StoreError
from lorif_assets.lake.partition_names import partition_names
from lorif_assets.lake.special_files import SPECIAL, is_special
from lorif_assets.stores.object_store import ObjectStore, copy_of, is_store_url

_FORMATS = {SourceFormat.PARQUET, SourceFormat.JSONL, SourceFormat.JSON, SourceFormat.CSV}


@dataclass(frozen=True)
class QuerySurvey:
    """Query sets by name; by name, why others are none; and what else lies at the path and is not read."""

    files: Mapping[str, Path]
    faults: Mapping[str, str]
    passed_over: tuple[str, ...] = ()


def query_files(settings: Settings) -> Mapping[str, Path]:
    """Return the query sets, by name.

    Raises:
        SourceError: the path does not exist, or two files differ in nothing but their suffix.
    """
    found = survey_queries(settings)
    for fault in found.faults.values():
        raise SourceError(fault)
    return found.files


def survey_queries(settings: Settings) -> QuerySurvey:
    """Look at the query path; in a directory, files whose names begin with `.` or `_` are skipped.

    Raises:
        SourceError: the path does not exist, or is the folder of a table.
    """
    root = _query_root(settings)
    if not root.exists():
        raise SourceError(
            f"the query path {root} does not exist; put a file of queries there, or correct `queries.path`"
        )
    if is_special(root):
        raise SourceError(f"the query path {root} is {SPECIAL}; set `queries.path` to a file or a folder")
    files = [root] if root.is_file() else _files_of(root)
    if table := table_around(files):
        raise _of_a_table(table)
    names = partition_names({file: (file.stem, file.suffix) for file in files})
    counts = Counter(names.values())
    return QuerySurvey(
        {name: file for file, name in names.items() if counts[name] == 1},
        {
            name: f"{root} has two query files named {name!r}; a query set is named after its file: rename one of them"
            for name, count in counts.items()
            if count > 1
        },
        () if root.is_file() else tuple(entry.name for entry in _visible(root) if entry not in names),
    )


def _query_root(settings: Settings) -> Path:
    """Return where query files lie on this machine; those in an object store are copied first."""
    path = settings.resolve(settings.queries.path)
    if not is_store_url(path):
        return Path(path)
    store = ObjectStore.at(path)
    try:
        found = store.files()
        if not found:
            return copy_of(path)
        beside = [file for file in found if "/" not in file.name]
        if table := table_among(store.url, (file.name for file in beside), (file.name for file in found)):
            raise _of_a_table(table)
        folder = store.copies(beside)
        store.forget(found)
    except StoreError as error:
        raise SourceError(f"the query path cannot be read: {error}") from error
    return folder


def _of_a_table(table: TableFolder) -> SourceError:
    return SourceError(
        f"the query path is within {table.folder}, {table.kind}: its files hold rows that it has since removed. Save the "
        "rows that it has now as a Parquet file, and set `queries.path` to that"
    )


def _files_of(root: Path) -> list[Path]:
    formats = {file: format_of_suffix(file) for file in _visible(root) if file.is_file()}
    found = {file: kind for file, kind in formats.items() if kind in _FORMATS}
    firm = [file for file, kind in found.items() if kind and not readers()[kind].is_fallback]
    return firm or list(found)


def _visible(root: Path) -> list[Path]:
    return [entry for entry in sorted(root.iterdir()) if not entry.name.startswith((".", "_"))]


def query_source(settings: Settings, query_set: str) -> Source:
    """Return one query set as a source.

    Raises:
        SourceError: there is no such file.
    """
    found = survey_queries(settings)
    if query_set in found.faults:
        raise SourceError(found.faults[query_set])
    files = found.files
    if query_set not in files:
        raise SourceError(
            f"there is no query set {query_set!r}: {settings.resolve(settings.queries.path)} has "
            f"{', '.join(files) or 'no Parquet, JSONL, JSON or CSV file'}"
        )
    file = files[query_set]
    # Relative where it can be: the path is part of the source's version, and a project may be moved.
    path = file.relative_to(settings.base) if file.is_relative_to(settings.base) else file
    root = settings.resolve(settings.queries.path)
    if is_store_url(root):
        # Where the copy lies differs from machine to machine.
        copied = ObjectStore.at(root).folder
        return Source(
            name=query_set,
            path=root if file == copied else f"{root.rstrip('/')}/{file.relative_to(copied).as_posix()}",
            columns=settings.queries.columns,
            limits=settings.queries.limits,
        )
    return Source(name=query_set, path=str(path), columns=settings.queries.columns, limits=settings.queries.limits)


def read_queries(file: Path, columns: Columns) -> list[Mapping[str, Any]]:
    """Return the rows of a query file that need not be one of the project's.

    Raises:
        SourceError: it is not there or unreadable, a column that is named is missing, or a row is malformed.
    """
    source = Source(name="queries", path=file.name, columns=columns)
    raw = read_source(source, file.absolute().parent)
    for row in raw.malformed:
        raise SourceError(f"{raw.place(row.row)} cannot be scored: {row.reason}")
    return [values for _, values in raw.rows]


def source_version(source: Source, settings: Settings) -> str:
    """Return what changes when the file of a query set does, or whether it may name Python code.

    Raises:
        SourceError: the file cannot be read, or has no rows.
    """
    pieces = [piece.version for piece in list_shards(source, settings.base)]
    return " ".join([*pieces, "scalars"] if settings.queries.allow_scalars else pieces)
