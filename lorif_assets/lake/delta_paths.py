"""Paths of Delta tables and of their data files: which a local table can have, and how they are encoded."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lorif_assets.lake.table_schema import TableSchema

if TYPE_CHECKING:
    from deltalake import DeltaTable

# Tried with delta-rs 1.6, which makes a URL of every path: it decodes a percent sign twice, and refuses the others.
_REFUSED = frozenset("%*[]\\^|")
# What ends the path of a URL: tables would be written, unseen, to a folder of the name before it.
_ENDS_OF_PATHS = frozenset("#?")


def refused_character(path: str) -> str | None:
    """Return the first character of a path or an object store's URL that delta-rs cannot read or write a table below."""
    refused = _REFUSED | _ENDS_OF_PATHS if "://" in path else _REFUSED
    return next((character for character in path if character in refused or ord(character) < 0x20), None)


def scan_table(table: "DeltaTable") -> pl.LazyFrame:
    """Return the table's rows, to be queried lazily.

    polars looks for a table's files at its URL, where a space is `%20`, and takes a folder `a=b` above it for a partition;
    pyarrow's reader goes by delta-rs's own file system, and takes the filters too, but reads slower.
    """
    return pl.scan_delta(table, use_pyarrow="%" in table.table_uri or "=" in table.table_uri)


def data_files(
    table: "DeltaTable", schema: TableSchema, filters: Mapping[str, str | Sequence[str]]
) -> dict[str, dict[str, str]]:
    """Return the partitions of a table's data files by their paths relative to the lake's root.

    Args:
        table: opened.
        schema: of the table.
        filters: values that columns have to have; those that are no partition columns are passed over.
    """
    actions = pa.table(table.get_add_actions(flatten=True))
    names = {f"partition.{name}": name for name in schema.partition_by}
    for column, name in names.items():
        if name in filters:
            wanted = filters[name]
            values = pa.array([wanted] if isinstance(wanted, str) else list(wanted), pa.string())
            actions = actions.filter(pc.is_in(actions[column].cast(pa.string()), value_set=values))
    rows = actions.select(["path", *names]).to_pylist()
    return {f"{schema.name}/{unquote(row['path'])}": {name: row[at] for at, name in names.items()} for row in rows}


def partition_of(path: str) -> dict[str, str]:
    """Return the partition that the path of a data file in a table's log names."""
    pairs = (folder.partition("=") for folder in path.split("/")[:-1])
    # The folder's name is encoded, and its path in the log once more.
    return {name: unquote(unquote(value)) for name, _, value in pairs}
