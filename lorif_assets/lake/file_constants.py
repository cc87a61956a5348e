"""What the statistics in a table's log say of its files, of which none is opened for that.

How many rows they have, and the columns that hold one value throughout a file.
"""

from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from lorif_assets.lake.damage import hidden_rows
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema


def logged_rows(lake: Lake, schema: TableSchema) -> dict[str, int]:
    """Return how many rows each partition has, of a table with one partition column.

    Raises:
        TableError: the table cannot be read.
    """
    table = lake.table(schema)
    if table is None:
        return {}
    (key,) = schema.partition_by
    files = pl.DataFrame(pa.table(table.get_add_actions(flatten=True)))
    return dict(files.group_by(f"partition.{key}").agg(pl.col("num_records").sum()).iter_rows())


def file_constants(lake: Lake, schema: TableSchema, columns: Sequence[str], **partition: str) -> pl.DataFrame:
    """Return the distinct rows of some text columns, in no order: what `lake.read(...).unique()` returns.

    Values come from the log where a file's least and greatest value are the same; a writer that cuts long values short
    makes them differ. Only the partitions of other files are read.

    Args:
        lake: where the table is.
        schema: the table.
        columns: text columns, partition columns included if wanted.
        partition: values of partition columns that the rows must have.

    Raises:
        TableError: the table cannot be read.
    """
    table = lake.table(schema)
    if table is None:
        return lake.read(schema, columns, **partition)
    actions = pl.DataFrame(pa.table(table.get_add_actions(flatten=True)))
    actions = actions.rename({f"partition.{name}": name for name in schema.partition_by})
    for name, value in partition.items():
        actions = actions.filter(pl.col(name) == value)
    hidden = hidden_rows(lake.hidden, schema, actions.select(schema.partition_by).iter_rows(named=True))
    if hidden is not None:
        actions = actions.filter(~hidden)
    stored = [name for name in columns if name not in schema.partition_by]
    if actions.is_empty() or any(f"min.{name}" not in actions.columns for name in stored):
        return lake.read(schema, columns, **partition).unique()
    constant = pl.all_horizontal(
        pl.lit(value=True),
        *((pl.col(f"min.{name}") == pl.col(f"max.{name}")) & (pl.col(f"null_count.{name}") == 0) for name in stored),
    ).fill_null(value=False)
    chosen = [pl.col(name) if name in schema.partition_by else pl.col(f"min.{name}").alias(name) for name in columns]
    known = actions.filter(constant).select(*chosen).unique()
    others = actions.filter(~constant)
    if others.is_empty():
        return known
    read = lake.read(schema, columns, **{name: others[name].unique().to_list() for name in schema.partition_by})
    return pl.concat([known, read.unique()]).unique()
