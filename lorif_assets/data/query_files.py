"""Query sets as files: each file of the query path is one set, named after the file.

Parquet and JSON Lines are; JSON and CSV where none of those lie beside them, as for training data.
"""

from collections import Counter
from pathlib import Path

from lorif_assets.config.settings import Settings
from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.formats import format_of_suffix, readers
from lorif_assets.data.shards import list_shards
from lorif_assets.errors import SourceError
from lorif_assets.lake.partition_names import partition_names

_FORMATS = {SourceFormat.PARQUET, SourceFormat.JSONL, SourceFormat.JSON, SourceFormat.CSV}


def query_files(settings: Settings) -> dict[str, Path]:
    """Return the query sets, by name; in a directory, files whose names begin with `.` or `_` are skipped.

    Raises:
        SourceError: the path does not exist, or two files differ in nothing but their suffix.
    """
    root = Path(settings.resolve(settings.queries.path))
    if not root.exists():
        raise SourceError(f"the query path {root} does not exist; correct `queries.path`")
    files = [root] if root.is_file() else _files_of(root)
    names = partition_names({file: (file.stem, file.suffix) for file in files})
    repeated = next((name for name, count in Counter(names.values()).items() if count > 1), None)
    if repeated is not None:
        raise SourceError(f"{root} has two query files named {repeated!r}; a query set is named after its file")
    return {names[file]: file for file in files}


def _files_of(root: Path) -> list[Path]:
    formats = {
        file: format_of_suffix(file)
        for file in sorted(root.iterdir())
        if file.is_file() and not file.name.startswith((".", "_"))
    }
    found = {file: kind for file, kind in formats.items() if kind in _FORMATS}
    firm = [file for file, kind in found.items() if kind and not readers()[kind].is_fallback]
    return firm or list(found)


def query_source(settings: Settings, query_set: str) -> Source:
    """Return one query set as a source.

    Raises:
        SourceError: there is no such file.
    """
    files = query_files(settings)
    if query_set not in files:
        raise SourceError(
            f"there is no query set {query_set!r}: {settings.resolve(settings.queries.path)} has "
            f"{', '.join(files) or 'no Parquet, JSONL, JSON or CSV file'}"
        )
    file = files[query_set]
    # Relative where it can be: the path is part of the source's version, and a project may be moved.
    path = file.relative_to(settings.base) if file.is_relative_to(settings.base) else file
    return Source(name=query_set, path=str(path), columns=settings.queries.columns)


def source_version(source: Source, settings: Settings) -> str:
    """Return what changes when the file of a query set does."""
    return " ".join(piece.version for piece in list_shards(source, settings.base))
