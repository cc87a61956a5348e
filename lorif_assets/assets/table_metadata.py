"""What an asset's definition says of the table it writes: where it is, and its columns."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from lorif_assets.lake.table_schema import TableSchema

OWNERS = ["team:attribution"]


def table_metadata(schema: TableSchema) -> Mapping[str, Any]:
    """Return the definition metadata of an asset that writes this table."""
    columns = [
        dg.TableColumn(
            field.name,
            str(field.type),
            description="partition column" if field.name in schema.partition_by else None,
        )
        for field in schema.columns
    ]
    if schema.open_columns is not None:
        columns.append(dg.TableColumn("<layer>", str(schema.open_columns), description="one column per tracked layer"))
    return {"dagster/table_name": schema.name, "dagster/column_schema": dg.TableSchema(columns=columns)}
