"""Query sets as files: each Parquet or JSONL file of the query path is one set, named after the file."""

from pathlib import Path

from lorif_assets.errors import SourceError
from lorif_assets.settings import Settings
from lorif_assets.sources import Source
from resources.source_files import list_shards

_SUFFIXES = (".parquet", ".jsonl", ".ndjson")


def query_files(settings: Settings) -> dict[str, Path]:
    """Return the query sets, by name.

    Raises:
        SourceError: the path is not there, or two files have one name.
    """
    root = Path(settings.resolve(settings.queries.path))
    if not root.exists():
        raise SourceError(f"the query path {root} does not exist; correct `queries.path`")
    files = [root] if root.is_file() else sorted(file for file in root.iterdir() if file.suffix in _SUFFIXES)
    names = [file.stem for file in files]
    for name in names:
        if names.count(name) > 1:
            raise SourceError(f"{root} has two query files named {name!r}; a query set is named after its file")
    return dict(zip(names, files, strict=True))


def query_source(settings: Settings, query_set: str) -> Source:
    """Return one query set as a source.

    Raises:
        SourceError: there is no such file.
    """
    files = query_files(settings)
    if query_set not in files:
        raise SourceError(
            f"there is no query set {query_set!r}: {settings.resolve(settings.queries.path)} has "
            f"{', '.join(files) or 'no Parquet or JSONL file'}"
        )
    return Source(name=query_set, path=str(files[query_set]), columns=settings.queries.columns)


def source_version(source: Source, settings: Settings) -> str:
    """Return what changes when the file of a query set does."""
    return " ".join(piece.version for piece in list_shards(source, settings.base))
