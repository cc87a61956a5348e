"""What selections have in common: the shards that sources have now, counts by metadata, and where a selection came from."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import polars as pl

from lorif_assets.data.formats.reader import ShardSlice
from lorif_assets.data.passages import passage_metadata
from lorif_assets.data.shards import survey
from lorif_assets.errors import SettingsError
from lorif_assets.influences.groups import NO_VALUE
from lorif_assets.influences.metadata_values import values_of
from lorif_assets.influences.selection import SelectedGroup, SelectedGroups
from lorif_assets.influences.wanted_rows import WantedRows
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.project import Project
from lorif_assets.tracking.source_commit import source_commit


def source_shards(project: Project, sources: Sequence[str]) -> dict[str, ShardSlice]:
    """Return the shards that sources have now, by name.

    Args:
        project: whose.
        sources: that are wanted; none: all.

    Raises:
        SettingsError: there is no such source.
    """
    settings = project.settings
    for name in sources:
        if name not in {source.name for source in settings.sources}:
            there = ", ".join(source.name for source in settings.sources) or "none"
            raise SettingsError(f"there is no source {name!r}; the settings have {there}")
    found = survey([source for source in settings.sources if not sources or source.name in sources], settings.base)
    return {piece.shard: piece for piece in found.shards if not piece.fault}


def of_sources(examples: pl.DataFrame, shards: Mapping[str, ShardSlice]) -> pl.DataFrame:
    """Return the examples of these shards alone, with the source of each, in the order of shards and rows."""
    sources = pl.DataFrame(
        [(name, piece.source) for name, piece in shards.items()],
        schema={"shard": pl.String, "source": pl.String},
        orient="row",
    )
    return examples.join(sources, on="shard", how="inner").sort("shard", "row")


def numbers_by_source(examples: pl.DataFrame) -> dict[str, int]:
    """Return how many examples each source has."""
    return dict(examples.group_by("source", maintain_order=True).len().iter_rows())


def selected_groups(candidates: pl.DataFrame, chosen: pl.DataFrame, column: str | None) -> SelectedGroups | None:
    """Count what was chosen of each value of a metadata column; None: of the first that an example has."""
    column = column or next((name for metadata in _metadata(candidates) for name in metadata), None)
    if column is None:
        return None
    of, taken = (_counted(_metadata(rows), column) for rows in (candidates, chosen))
    found = (SelectedGroup(name, taken[name], n_examples) for name, n_examples in of.items())
    return SelectedGroups(
        column, tuple(sorted(found, key=lambda group: (-group.n_rows, -group.n_examples, group.name)))
    )


def _metadata(examples: pl.DataFrame) -> Iterable[Mapping[str, Any]]:
    return (passage_metadata({"metadata": metadata}) for metadata in examples["metadata"])


def _counted(examples: Iterable[Mapping[str, Any]], column: str) -> Counter[str]:
    return Counter(name for metadata in examples for name in values_of(metadata, column) or (NO_VALUE,))


def common_origin(project: Project, wanted: WantedRows, tables: Sequence[TableSchema]) -> dict[str, Any]:
    """Return where and how anything was selected: the command, the time, the versions of tables, and of what is installed."""
    lake = project.lake
    versions = {schema.name: table.version() for schema in tables if (table := lake.table(schema)) is not None}
    return {
        "command": wanted.command,
        "selected": datetime.now(UTC).isoformat(timespec="seconds"),
        "lake": {"root": lake.root, "versions": versions},
        "commit": source_commit(project.settings.base) or None,
        "lorif_assets": version("lorif-assets"),
    }
