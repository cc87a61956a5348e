"""What guards tables: checksums of their data files, and copies of their log, in `checksums/` under the same paths.

Both are written right after the commit that they belong to. A file without one was written by an earlier version, or by a
process that died at that moment: it is read as it is. A log entry that is no longer what was committed is put back from its
copy. In passing this is looked at in a directory only; an object store guards its objects itself, and `lorif verify` reads
them all the same.
"""

import json
import logging
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from lorif_assets.errors import StoreError
from lorif_assets.lake.checksums import ParquetChecksums, checksum, sealed, sealed_parts, unsealed
from lorif_assets.lake.stored_files import StoredFiles

FOLDER: Final = "checksums"
LOG: Final = "_delta_log"
_SUFFIX: Final = ".xxh3"
_NEWEST: Final = "_last_checkpoint"
_ACTIONS: Final = frozenset({"add", "remove", "metaData", "protocol", "txn", "commitInfo", "cdc", "domainMetadata"})
_LOG = logging.getLogger(__name__)
# Files that were found as they were written, with their sizes and times: each is looked at once in a process.
_sound: dict[str, tuple[int, int]] = {}


class State(Enum):
    """What a look at a file found."""

    SOUND = "as it was written"
    UNCHECKED = "without a checksum"
    DAMAGED = "not what was written"
    MENDED = "not what was written, and put back from its copy, or taken away where it is not needed"


def seal_path(path: str) -> str:
    """Return where the checksums of a data file are, or the copy of a log file."""
    return f"{FOLDER}/{path}{_SUFFIX}"


def sealed_path(path: str) -> str:
    """Return the file that a path of `seal_path` is about."""
    return path.removeprefix(f"{FOLDER}/").removesuffix(_SUFFIX)


def seal_commit(files: StoredFiles, table: str, version: int, *, by_column: bool) -> None:
    """Store the checksums of a commit's data files, and copies of what it added to the log, if they are not there yet.

    Args:
        files: of the lake.
        table: name of the table.
        version: of the table after the commit.
        by_column: whether parts of its files are read without the rest.
    """
    entry = f"{table}/{LOG}/{version:020}.json"
    if not files.has(seal_path(entry)):
        content = files.read(entry)
        for line in content.splitlines():
            action = json.loads(line)
            if "add" in action:
                path = f"{table}/{unquote(action['add']['path'])}"
                if files.has(seal_path(path)):
                    # Whoever wrote the file ahead of the commit did it.
                    continue
                sums = ParquetChecksums.of(files.view(path), by_part=by_column)
                files.write(seal_path(path), sealed(sums.to_bytes()))
        files.write(seal_path(entry), sealed(content))
    checkpoint = f"{table}/{LOG}/{version:020}.checkpoint.parquet"
    for path in (checkpoint, f"{table}/{LOG}/{_NEWEST}"):
        try:
            content = files.read(path)
        except FileNotFoundError:
            return
        files.write(seal_path(path), sealed(content))


def remove_seals(files: StoredFiles, table: str) -> None:
    """Remove what guarded an earlier table of the same name, which is gone."""
    # Listed first: what another process that makes the table at this moment writes afterwards is not among them.
    earlier = [path for path, _ in files.sizes(f"{FOLDER}/{table}")]
    if not earlier or any(path.endswith(".json") for path, _ in files.sizes(f"{table}/{LOG}")):
        return
    for path in earlier:
        files.delete(path)


def data_file_checksums(files: StoredFiles, path: str) -> ParquetChecksums | State:
    """Return the checksums of a data file, or that it has none, or that they are damaged themselves."""
    try:
        content = unsealed(files.read(seal_path(path)))
    except FileNotFoundError:
        return State.UNCHECKED
    return State.DAMAGED if content is None else ParquetChecksums.from_bytes(content)


def look_at_data_file(files: StoredFiles, path: str) -> State:
    """Compare a whole data file with its checksum.

    Raises:
        FileNotFoundError: it is gone.
    """
    sums = data_file_checksums(files, path)
    if isinstance(sums, State):
        return sums
    return State.SOUND if sums.fit(files.view(path)) else State.DAMAGED


def damaged_data_files(files: StoredFiles, paths: Iterator[str]) -> Iterator[str]:
    """Yield those of a directory's data files that are not what was written; a file that is gone is no such one."""
    for path in paths:
        signature = _signature(Path(files.root, path))
        if signature is None or _sound.get(f"{files.root}/{path}") == signature:
            continue
        if look_at_data_file(files, path) is State.DAMAGED:
            yield path
        else:
            _sound[f"{files.root}/{path}"] = signature


def damaged_log_files(files: StoredFiles, table: str) -> list[str]:
    """Put a directory's log files that a reader of the table needs back as they were, and return those that cannot be."""
    entries = _entries(Path(files.root, table, LOG))
    damaged = []
    if lost := [f"{table}/{LOG}/{name}" for name in _lost(files, table, entries)]:
        damaged = [path for path in lost if not (files.has(path) or put_back_log_file(files, path))]
        entries = _entries(Path(files.root, table, LOG))
    checkpoints = [name for name in entries if name.endswith(".checkpoint.parquet")]
    newest = max(checkpoints, default="")
    needed = [name for name in entries if name.endswith(".json") and name > newest]
    for name in (*needed, *filter(None, (newest, _NEWEST if _NEWEST in entries else ""))):
        path, signature = f"{table}/{LOG}/{name}", (entries[name].st_size, entries[name].st_mtime_ns)
        if _sound.get(f"{files.root}/{path}") == signature:
            continue
        state = look_at_log_file(files, path)
        if state is State.DAMAGED:
            damaged.append(path)
        elif state is not State.MENDED:
            _sound[f"{files.root}/{path}"] = signature
    return damaged


def _entries(folder: Path) -> dict[str, os.stat_result]:
    found: dict[str, os.stat_result] = {}
    # Of what another process is writing, a file may be gone by now.
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder):
            with suppress(FileNotFoundError):
                found[entry.name] = entry.stat()
    return found


def _lost(files: StoredFiles, table: str, present: Collection[str]) -> list[str]:
    """Return the log files of a table that a reader needs and that are gone though there are copies of them, sorted.

    Without its last entry, a table would be read as it was before.
    """
    if not any(name.endswith(".json") for name in present):
        # The table was deleted, or is being made.
        return []
    # Beside them lie those that another process is writing.
    of_log = tuple(f"{kind}{_SUFFIX}" for kind in (".json", ".checkpoint.parquet"))
    folder = Path(files.root, FOLDER, table, LOG)
    found = [entry.name for entry in os.scandir(folder)] if folder.is_dir() else []
    copies = [name.removesuffix(_SUFFIX) for name in found if name.endswith(of_log)]
    checkpoints = (name for name in (*present, *copies) if name.endswith(".checkpoint.parquet"))
    newest = max(checkpoints, default="")
    return sorted(name for name in copies if name not in present and name >= newest)


def look_at_log_file(files: StoredFiles, path: str) -> State:
    """Compare a log file with its copy, and put back that of the two which changed.

    A pointer to the newest checkpoint that cannot be put back is taken away: readers find the checkpoint without it.

    Raises:
        FileNotFoundError: it is gone.
    """
    content = files.read(path)
    try:
        copy = files.read(seal_path(path))
    except FileNotFoundError:
        return State.UNCHECKED
    state = _compared(files, path, content, copy)
    if state is State.DAMAGED and path.endswith(_NEWEST):
        return _taken_away(files, path)
    return state


def _compared(files: StoredFiles, path: str, content: bytes, copy: bytes) -> State:
    inner, written = sealed_parts(copy)
    whole = unsealed(copy)
    if not any(content):
        # Empty, or zeros: what a loss of power leaves, of the copy too, which then agrees with it.
        return _put_back(files, path, whole, "a log file") if whole else State.DAMAGED
    if content == inner or checksum(content) == written:
        is_sound = copy == sealed(content)
        return State.SOUND if is_sound else _put_back(files, seal_path(path), sealed(content), "the copy of a log file")
    if path.endswith(_NEWEST) and _is_newer(files, path, content, inner):
        return State.UNCHECKED
    if whole is not None:
        return _put_back(files, path, whole, "a log file")
    # Where both are the same, both may have been cut, or replaced.
    was_cut = not any(copy) or (copy != content and sealed(content).startswith(copy))
    if was_cut and reads_as_log(files, path):
        return _put_back(files, seal_path(path), sealed(content), "the copy of a log file")
    return State.DAMAGED


def reads_as_log(files: StoredFiles, path: str) -> bool:
    """Whether a log file can be read: a checkpoint as Parquet, an entry as lines of actions; of others it is not known."""
    if path.endswith(".parquet"):
        return files.reads_as_parquet(path)
    if not path.endswith(".json") and "." in path.rpartition("/")[2]:
        return True
    try:
        actions = [json.loads(line) for line in files.read(path).splitlines()]
    except ValueError:
        return False
    return bool(actions) and all(isinstance(action, dict) and _ACTIONS & action.keys() for action in actions)


def _taken_away(files: StoredFiles, path: str) -> State:
    try:
        for one in (path, seal_path(path)):
            files.delete(one)
    except (OSError, StoreError):
        return State.DAMAGED
    _LOG.warning("%s, a pointer in the lake %s, was not what was written, and was taken away", path, files.root)
    return State.MENDED


def put_back_log_file(files: StoredFiles, path: str) -> bool:
    """Write a log file that is gone from its copy, and return whether that could be done."""
    try:
        content = unsealed(files.read(seal_path(path)))
    except FileNotFoundError:
        return False
    return content is not None and _put_back(files, path, content, "a log file") is State.MENDED


def _is_newer(files: StoredFiles, path: str, content: bytes, copy: bytes) -> bool:
    """Whether a pointer to the newest checkpoint was written after its copy, by a process that died before it copied it."""
    try:
        version, before = (int(json.loads(text)["version"]) for text in (content, copy))
    except (ValueError, KeyError, TypeError):
        return False
    checkpoint = path.replace(_NEWEST, f"{version:020}.checkpoint.parquet")
    return version > before and any(found == checkpoint for found, _ in files.sizes(path.rpartition("/")[0]))


def _put_back(files: StoredFiles, path: str, content: bytes, what: str) -> State:
    try:
        files.write(path, content)
    except (OSError, StoreError):
        return State.DAMAGED
    _LOG.warning("%s, %s of the lake %s, was not what was written, and was put back", path, what, files.root)
    return State.MENDED


def _signature(file: Path) -> tuple[int, int] | None:
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns
