"""Files of rows: Parquet with types that fit all of them, or JSON Lines. A file is there whole, or not at all."""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from lorif_assets.data.rows.row_ids import text_of_id
from lorif_assets.data.source_rows import SourceRows, no_common_type
from lorif_assets.errors import SourceError

LINEAGE_KEY = "lorif.selection"
"""Of a Parquet file's metadata."""


def write_parquet(path: Path, source: str, parts: Iterable[SourceRows], lineage: Mapping[str, Any]) -> None:
    """Write rows of a source, part by part, as one Parquet file; no more than a part is held in memory.

    What is known of their types after the last part decides the columns: parts wait beside the file until then.

    Raises:
        SourceError: values of one column have no type in common, or one that Parquet does not have.
    """
    schemas: list[pa.Schema] = []
    text_ids: set[str] = set()
    for part in parts:
        table = part.table()
        with pa.ipc.new_file(_waiting(path, len(schemas)), table.schema) as file:
            file.write_table(table)
        schemas.append(table.schema)
        text_ids |= set() if part.text_ids is None else {part.text_ids}
    schema = _common([_with_text_ids(one.empty_table(), text_ids).schema for one in schemas], source)
    # What is said of the columns of some parts only is not true of all.
    said = {
        key: value
        for key, value in (schema.metadata or {}).items()
        if all(key in (one.metadata or {}) for one in schemas)
    }
    metadata = {**said, LINEAGE_KEY: json.dumps(lineage)}
    try:
        with pq.ParquetWriter(path, schema.with_metadata(metadata)) as writer:
            for k in range(len(schemas)):
                with pa.memory_map(str(_waiting(path, k))) as mapped:
                    table = _with_text_ids(pa.ipc.open_file(mapped).read_all(), text_ids)
                    writer.write_table(pa.concat_tables([schema.empty_table(), table], promote_options="permissive"))
                    del table
                _waiting(path, k).unlink()
    except pa.ArrowException as error:
        raise SourceError(
            f"source '{source}' cannot be written as Parquet: {error}. Name an output that ends in .jsonl, which holds each "
            "row as it came"
        ) from error


def write_json_lines(path: Path, parts: Iterable[SourceRows]) -> None:
    """Write rows, part by part, as JSON Lines.

    Raises:
        SourceError: their format has types that JSON does not.
    """
    with path.open("w", encoding="utf-8") as file:
        for part in parts:
            file.writelines(f"{line}\n" for line in part.lines())


def _with_text_ids(table: pa.Table, columns: Collection[str]) -> pa.Table:
    """Return a table in which the ids of rows are text, where those of sequences in other parts are."""
    for name in {*columns} & {*table.column_names}:
        ids = pa.array([text_of_id(value, name) for value in table[name].to_pylist()], pa.string())
        table = table.set_column(table.column_names.index(name), name, ids)
    return table


def _waiting(path: Path, part: int) -> Path:
    return path.with_name(f".{path.name}-{part}.arrow")


def _common(schemas: list[pa.Schema], source: str) -> pa.Schema:
    common = schemas[0]
    for schema in schemas[1:]:
        try:
            common = pa.unify_schemas([common, schema], promote_options="permissive")
        except pa.ArrowException as error:
            column = next((one.name for one in schema if _differs(common, one)), "")
            raise no_common_type(source, column, error) from error
    return common


def _differs(common: pa.Schema, field: pa.Field) -> bool:
    try:
        pa.unify_schemas([common, pa.schema([field])], promote_options="permissive")
    except pa.ArrowException:
        return True
    return False
