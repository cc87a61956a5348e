"""What a Delta table of the lake looks like."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class TableSchema:
    """Columns and partition columns of one Delta table.

    `open_columns` is the type of further columns that a table may have (one per layer), or None for a closed table.
    """

    name: str
    partition_by: tuple[str, ...]
    columns: pa.Schema
    open_columns: pa.DataType | None = None


def columns(**types: pa.DataType) -> pa.Schema:
    """Return nullable columns of these types, in this order."""
    return pa.schema([pa.field(name, kind) for name, kind in types.items()])
