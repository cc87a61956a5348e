"""Deleting what nothing points to any more: superseded tensors of curvature, bases and scans, and old table files.

What a ledger names stays, however old: to subtract a changed shard, a curvature state needs the file that was added.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

import pyarrow.fs as pafs

from lorif_assets.attribution.stored.curvatures import curvature_tables
from lorif_assets.attribution.stored.ledger import Ledger
from lorif_assets.errors import StoreError, TableError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, KFAC_BASES, SCORE_SCANS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.named_checksums import CHECKSUM_LIST
from lorif_assets.lake.seals import FOLDER as SEALS
from lorif_assets.lake.seals import seal_path, sealed_path
from lorif_assets.lake.stored_files import is_unfinished
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.lake.tables import TABLES

# Folders of tensors, and the tables and columns that point to their files or folders of files.
_TENSORS: Mapping[str, Sequence[tuple[TableSchema, str]]] = {
    "curvature_states": tuple((table, "state_uri") for table in curvature_tables()),
    "scan_states": ((SCORE_SCANS, "state_uri"),),
    "kfac_bases_tensors": ((KFAC_BASES, "uri"),),
    "fisher_sums": ((GRADIENT_FACTORS, "fisher"),),
}


@dataclass(frozen=True)
class SupersededFile:
    """A file that nothing points to: its path relative to the lake's root, and its bytes."""

    path: str
    size: int


def superseded_files(lake: Lake, retention_hours: int) -> list[SupersededFile]:
    """Return the files that nothing has pointed to for the retention period.

    Raises:
        TableError: a table cannot be read; without it, no file is known to be superseded.
    """
    # Files are listed before the rows are read: a state that is committed in between is then among the rows.
    before = time.time() - 3_600 * retention_hours
    states = [
        info
        for folder in _TENSORS
        for info in _found(lake, pafs.FileSelector(folder, allow_not_found=True, recursive=True))
        if info.path.endswith((".safetensors", CHECKSUM_LIST))
        and info.mtime is not None
        and info.mtime.timestamp() < before
    ]
    old = {schema.name: _unreferenced(lake, schema, retention_hours) for schema in TABLES.values()}
    pointers = {pointer for pointers in _TENSORS.values() for pointer in pointers}
    in_use = {uri for schema, column in pointers for uri in lake.read(schema, [column])[column].unique() if uri}
    named = {unquote(path) for path in _ledger_paths(lake)}
    in_use |= named
    old[GRADIENT_FACTORS.name] = [path for path in old[GRADIENT_FACTORS.name] if path not in named]
    paths = [f"{table}/{path}" for table, found in old.items() for path in found]
    return [
        *(SupersededFile(info.path, info.size) for info in states if not _points_to(in_use, info.path)),
        *_sized(lake, paths),
        *_left_alone(lake, before),
    ]


def delete(lake: Lake, files: Collection[SupersededFile]) -> None:
    """Delete files, each with its checksums; a file that is already gone is no error.

    Raises:
        TableError: some could not be deleted; all others were.
    """
    failed: dict[str, OSError | StoreError] = {}
    for file in files:
        try:
            with lake.stored.reaching():
                lake.files.delete_file(file.path)
            lake.stored.delete(seal_path(file.path))
        except FileNotFoundError:
            continue
        except (OSError, StoreError) as error:
            failed[file.path] = error
    if failed:
        path, cause = next(iter(failed.items()))
        raise TableError(
            f"{len(failed)} of {len(files)} superseded files of the lake {lake.root} cannot be deleted, the first {path}: "
            f"{cause}. Nothing needs them; correct their permissions and vacuum again"
        ) from cause


def _left_alone(lake: Lake, before: float) -> Iterator[SupersededFile]:
    """Yield old files that lost what they belong to.

    They are checksums of data files, and copies of log files, that are gone (Delta Lake tidies its log by itself), and what a
    process that was killed had begun to write, here or in delta-rs.
    """
    found = _found(lake, pafs.FileSelector("", allow_not_found=True, recursive=True))
    files = [info for info in found if info.type is pafs.FileType.File]
    present = {info.path for info in files}
    for info in files:
        is_old = info.mtime is not None and info.mtime.timestamp() < before
        is_seal = info.path.startswith(f"{SEALS}/") and sealed_path(info.path) not in present
        if is_old and (is_seal or is_unfinished(info.path)):
            yield SupersededFile(info.path, info.size)


def _ledger_paths(lake: Lake) -> Iterator[str]:
    """Yield the paths that curvature states need to subtract a shard: a file of factors, or a folder of sums."""
    for schema in curvature_tables():
        for ledger in lake.read(schema, ["ledger"])["ledger"].unique():
            yield from (entry.path for entry in Ledger.parse(ledger).entries.values())


def _points_to(in_use: Collection[str], path: str) -> bool:
    return path in in_use or any(str(folder) in in_use for folder in PurePosixPath(path).parents)


def _unreferenced(lake: Lake, schema: TableSchema, retention_hours: int) -> Sequence[str]:
    """Return the paths in a table's folder that its newest version does not hold and that left it long enough ago."""
    table = lake.table(schema)
    if table is None:
        return []
    # `full` also finds files that a crash left without a commit; a dry run deletes nothing. Reports, which are no table
    # files, are in the folder of the table that lists them.
    listed = table.vacuum(retention_hours, dry_run=True, enforce_retention_duration=False, full=True)
    return [path for path in listed if path.endswith(".parquet")]


def _sized(lake: Lake, paths: Sequence[str]) -> Iterator[SupersededFile]:
    for info in _found(lake, list(paths)):
        if info.type is pafs.FileType.File:
            yield SupersededFile(info.path, info.size)


def _found(lake: Lake, where: pafs.FileSelector | list[str]) -> Sequence[pafs.FileInfo]:
    with lake.stored.reaching():
        return list(lake.files.get_file_info(where))
