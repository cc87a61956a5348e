"""How a partition's rows lie in its file: encodings and row groups that keep tables small and factors quick to read."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from lorif_assets.errors import TableError
from lorif_assets.lake.full_disks import writing_to
from lorif_assets.lake.table_schema import TableSchema

if TYPE_CHECKING:
    from deltalake import DeltaTable

# One shard is one file, so that the order of its rows is the file's.
_ONE_FILE = 1 << 40
COMMIT_RETRIES = 20
_LONGEST_CONSTANT = 512
# Single rows are read by row group: as few rows as still stream well, and more where rows are short, because each group
# and layer takes some hundred bytes of the file's footer.
_FACTOR_ROWS_PER_GROUP = range(128, 1025)
_FACTOR_BYTES_PER_GROUP = 1 << 20


def with_constants(rows: pa.Table, constants: Mapping[str, str]) -> pa.Table:
    """Return the rows with columns that hold one value throughout, in place of those of the same names."""
    columns = {name: rows[name] for name in rows.column_names}
    columns |= {name: pa.array([value] * rows.num_rows, pa.string()) for name, value in constants.items()}
    return pa.table(columns)


def overwrite(table: "DeltaTable", schema: TableSchema, partition: Mapping[str, str], data: pa.Table) -> None:
    """Replace a partition by these rows, in one commit and one file.

    Raises:
        CannotWriteError: the disk is full, say.
    """
    from deltalake import ColumnProperties, CommitProperties, WriterProperties, write_deltalake

    factor_columns = [name for name in data.column_names if name not in schema.columns.names]
    # Factors are noise: statistics, dictionaries and compression cost time and save no byte. Their values are equally long,
    # which this encoding packs to nothing; a plain one stores four bytes of length with each.
    encodings: dict[str, Any] = dict.fromkeys(factor_columns, "DELTA_LENGTH_BYTE_ARRAY")
    statistics: dict[str, Any] = dict.fromkeys(factor_columns, "NONE")
    if factor_columns:
        # Beside a hundred bytes of signs, ids and counts that are stored plainly would weigh.
        encodings |= {
            "example_id": "DELTA_BYTE_ARRAY",
            "row": "DELTA_BINARY_PACKED",
            "n_target_tokens": "DELTA_BINARY_PACKED",
        }
    properties = {
        name: ColumnProperties(dictionary_enabled=False, statistics_enabled=statistics.get(name), encoding=encoding)
        for name, encoding in encodings.items()
    }
    with writing_to(table.table_uri):
        write_deltalake(
            table,
            data,
            mode="overwrite",
            predicate=" AND ".join(f"{column} = {_literal(value)}" for column, value in partition.items()),
            schema_mode="merge",
            target_file_size=_ONE_FILE,
            writer_properties=WriterProperties(
                compression="UNCOMPRESSED" if factor_columns else "ZSTD",
                # Hashes and versions are read from the statistics: cut short, they would say nothing.
                statistics_truncate_length=_LONGEST_CONSTANT,
                max_row_group_size=_rows_per_group(data.select(factor_columns)) if factor_columns else None,
                column_properties=properties or None,
            ),
            commit_properties=CommitProperties(max_commit_retries=COMMIT_RETRIES),
        )


def holds_partition(table: "DeltaTable", values: Mapping[str, Collection[str]]) -> bool:
    """Whether a table has a file whose partition columns have one of some values each."""
    actions = pa.table(table.get_add_actions(flatten=True))
    for column, allowed in values.items():
        actions = actions.filter(pc.is_in(actions[f"partition.{column}"], pa.array(list(allowed), pa.string())))
    return bool(actions.num_rows)


def drop(table: "DeltaTable", values: Mapping[str, Collection[str]]) -> None:
    """Remove the files whose partition columns have one of some values each, in one commit."""
    from deltalake import CommitProperties

    terms = (f"{column} IN ({', '.join(map(_literal, sorted(allowed)))})" for column, allowed in values.items())
    with writing_to(table.table_uri):
        table.delete(" AND ".join(terms), commit_properties=CommitProperties(max_commit_retries=COMMIT_RETRIES))


def conformed(schema: TableSchema, partition: Mapping[str, str], rows: pa.Table) -> pa.Table:
    """Return the rows with the table's columns in their declared order and types.

    Raises:
        TableError: a column is missing, unknown or of another type, a row lies outside the partition, or the partition
            does not name every partition column.
    """
    if partition.keys() != set(schema.partition_by):
        raise TableError(
            f"a partition of {schema.name} is identified by {', '.join(schema.partition_by)}, found {', '.join(partition)}"
        )
    missing = [name for name in schema.columns.names if name not in rows.column_names]
    extra = [name for name in rows.column_names if name not in schema.columns.names]
    if missing or (extra and schema.open_columns is None):
        raise TableError(
            f"rows for the table {schema.name} "
            + (f"lack the column {missing[0]!r}" if missing else f"have the unknown column {extra[0]!r}")
            + f"; its columns are {', '.join(schema.columns.names)}"
        )
    target = pa.schema([*schema.columns, *(pa.field(name, schema.open_columns) for name in extra)])
    try:
        data = rows.select(target.names).cast(target)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise TableError(f"rows for the table {schema.name} do not have its types: {error}") from error
    for column, value in partition.items():
        found = [other for other in pc.unique(data[column]).to_pylist() if other != value]
        if found:
            raise TableError(f"rows for {schema.name} with {column} = {value!r} contain {column} = {found[0]!r}")
    return data


def _rows_per_group(factors: pa.Table) -> int:
    bytes_per_row = max(1, factors.nbytes // max(1, factors.num_rows))
    rows = _FACTOR_BYTES_PER_GROUP // bytes_per_row
    return min(max(rows, _FACTOR_ROWS_PER_GROUP.start), _FACTOR_ROWS_PER_GROUP.stop - 1)


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
