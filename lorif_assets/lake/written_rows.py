"""Rows of a partition in a data file that no commit names yet: written by one process, for another one to commit.

The file is that which a commit of the rows would have written, made by delta-rs in a table of its own that is thrown away.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa

from lorif_assets.lake.checksums import ParquetChecksums, sealed
from lorif_assets.lake.full_disks import writing_to
from lorif_assets.lake.seals import seal_path
from lorif_assets.lake.stored_files import StoredFiles
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.lake.table_writing import conformed, overwrite
from lorif_assets.scratch_folders import scratch_folder

if TYPE_CHECKING:
    from deltalake import DeltaTable


@dataclass(frozen=True)
class WrittenRows:
    """A data file: its path in its table, its bytes, how many rows it has, its statistics as in Delta's log, and its schema."""

    path: str
    size: int
    num_rows: int
    statistics: str
    partition: Mapping[str, str]
    schema: pa.Schema


def write_rows(files: StoredFiles, table: TableSchema, partition: Mapping[str, str], rows: pa.Table) -> WrittenRows:
    """Write the rows of a partition, with their checksums, below a table, and return what a commit needs to know of them.

    Raises:
        TableError: the rows have other columns or types than the table declares, or rows outside the partition.
    """
    from deltalake import DeltaTable

    data = conformed(table, partition, rows)
    with scratch_folder() as folder:
        made = DeltaTable.create(str(folder), schema=data.schema, partition_by=list(table.partition_by))
        overwrite(made, table, partition, data)
        log = (folder / "_delta_log" / f"{made.version():020}.json").read_text()
        (added,) = [action["add"] for action in map(json.loads, log.splitlines()) if "add" in action]
        # Delta logs hold percent-encoded paths.
        path = unquote(added["path"])
        content = (folder / path).read_bytes()
    sums = ParquetChecksums.of(content, by_part=table.open_columns is not None)
    stored = f"{table.name}/{path}"
    files.write(stored, content)
    files.write(seal_path(stored), sealed(sums.to_bytes()))
    return WrittenRows(path, len(content), data.num_rows, added["stats"], dict(partition), data.schema)


def commit_rows(table: "DeltaTable", written: WrittenRows) -> None:
    """Replace a partition by rows that are written already, in one commit; columns that are new are added to the table.

    Raises:
        CommitFailedError: something else was committed since the table was read. It may be rows of this partition, which
            nothing but another look at the table would find: the commit names no rows that it has read.
    """
    from deltalake import CommitProperties, Schema
    from deltalake.transaction import AddAction

    filters = [(column, "=", value) for column, value in written.partition.items()]
    if [PurePosixPath(uri).name for uri in table.file_uris(filters)] == [PurePosixPath(written.path).name]:
        # It was committed before, and the answer was lost.
        return
    present = list(table.schema().fields)
    known = {field.name for field in present}
    added = [field for field in Schema.from_arrow(written.schema).fields if field.name not in known]
    now = int(time.time() * 1_000)
    with writing_to(table.table_uri):
        table.create_write_transaction(
            [AddAction(written.path, written.size, written.partition, now, True, written.statistics)],
            mode="overwrite",
            schema=Schema([*present, *added]),
            partition_by=list(written.partition),
            partition_filters=filters,
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    table.update_incremental()
