"""Everything that a lake holds, read and compared with its checksums: tables, logs, tensors, pages, and the checksums.

Every file below the root is looked at, whether or not a row points to it, and every file that a row or a log points to is
looked for.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from lorif_assets.errors import DamagedLakeError, TableError
from lorif_assets.lake.checksums import unsealed
from lorif_assets.lake.damage import FOLDER as NOTES
from lorif_assets.lake.damage import LOST, NO_CHECKSUMS, OTHER_CONTENT, UNREADABLE, Damage, log_damage, note
from lorif_assets.lake.delta_paths import data_files, partition_of
from lorif_assets.lake.format_version import FILE as FORMAT_FILE
from lorif_assets.lake.format_version import put_back_format
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.named_checksums import CHECKSUM_LIST, look_at_named_file, look_at_page, page_path
from lorif_assets.lake.seals import FOLDER as SEALS
from lorif_assets.lake.seals import (
    LOG,
    State,
    data_file_checksums,
    look_at_data_file,
    look_at_log_file,
    put_back_log_file,
    reads_as_log,
    seal_path,
    sealed_path,
)
from lorif_assets.lake.tables import FILE_COLUMNS, PAGE_TABLES, TABLES

_PUT_BACK: Final = "was not what was written"
_PUT_BACK_REMEDY: Final = "it was put back from its copy; there is nothing to make again"
_NOT_NEEDED_REMEDY: Final = "it was taken away, as the table is read without it; there is nothing to make again"
_UNUSED_REMEDY: Final = (
    "it belongs to no current partition: there is nothing to make again, and `lorif vacuum` deletes it in time"
)


@dataclass(frozen=True)
class Verification:
    """What was found: the damage, how many files and bytes were read, and how many files had no checksum to compare with."""

    damage: list[Damage] = field(default_factory=list)
    states: Counter[State] = field(default_factory=Counter)
    n_bytes: int = 0

    @property
    def n_files(self) -> int:
        """The files that were read."""
        return self.states.total()

    @property
    def unchecked(self) -> int:
        """Those that can be read, and were written without a checksum."""
        return self.states[State.UNCHECKED]

    def document(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {
            "files": self.n_files,
            "bytes": self.n_bytes,
            "unchecked": self.unchecked,
            "damage": [
                {
                    "file": one.file,
                    "what": one.what,
                    "table": one.table,
                    "partition": dict(one.partition),
                    "asset": one.asset if one.partition else "",
                    "what_to_do": one.what_to_do,
                }
                for one in self.damage
            ],
        }


@dataclass(frozen=True)
class _Owner:
    """The row that points to a file, or the partition whose rows it holds."""

    table: str
    partition: Mapping[str, str]


def files_to_verify(lake: Lake) -> dict[str, int]:
    """Return the files of a lake with their sizes."""
    return {path: size for path, size in lake.stored.sizes() if not _is_passed_over(path)}


def verify(lake: Lake, files: Mapping[str, int], advance: Callable[[int], None] = lambda _bytes: None) -> Verification:
    """Read every file, and note damage in the lake, so that what is damaged counts as missing.

    Args:
        lake: to read.
        files: of `files_to_verify`.
        advance: called with the bytes of each file that was read.

    Raises:
        TableError: a newer version of the project wrote the lake.
    """
    found = _Verifier(lake, files)
    for path, size in files.items():
        found.look(path)
        advance(size)
    found.look_for_lost()
    for damage in found.damage.values():
        if not damage.remedy:
            note(lake.stored, damage)
    return Verification(list(found.damage.values()), found.states, sum(files.values()))


class _Verifier:
    def __init__(self, lake: Lake, files: Mapping[str, int]) -> None:
        self._lake, self._stored, self._files = lake, lake.stored, files
        self.damage: dict[str, Damage] = {}
        self.states: Counter[State] = Counter()
        if put_back_format(self._stored):
            self.damage[FORMAT_FILE] = Damage(
                FORMAT_FILE, _PUT_BACK, remedy="it was put back; there is nothing to make again"
            )
        # Logs first: opening a table puts its log back where that is possible.
        self._logs = {path: self._log_state(path) for path in files if f"/{LOG}/" in path and not _is_seal(path)}
        self._data: dict[str, _Owner] = {}
        self._pointers: dict[str, _Owner] = {}
        self._pages: dict[str, tuple[str, _Owner]] = {}
        self._damaged_rows: set[str] = set()
        self._unreadable: set[str] = set()
        for table in TABLES:
            self._read_table(table)

    def look(self, path: str) -> None:
        """Look at one file."""
        try:
            state, damage = self._looked_at(path)
        except FileNotFoundError:
            # Gone since the files were listed: whether it is missed is seen at the end.
            return
        self.states[state] += 1
        if damage is not None:
            self.damage.setdefault(path, damage)

    def look_for_lost(self) -> None:
        """Look for every file that a row or a log points to."""
        for path, owner in {**self._data, **{page: one for page, (_, one) in self._pages.items()}}.items():
            if path not in self._files and not self._stored.has(path):
                self.damage[path] = Damage(path, LOST, owner.table, owner.partition)
        present = {*self._files, *(folder for path in self._files for folder in _folders(path))}
        for pointer, owner in self._pointers.items():
            for path in (pointer, *self._listed(pointer)):
                if path not in present:
                    self.damage[path] = Damage(path, LOST, owner.table, owner.partition)
        for path in self._files:
            log = sealed_path(path)
            if _is_seal(path) and f"/{LOG}/" in log and self._is_missed(log) and put_back_log_file(self._stored, log):
                self.damage[log] = Damage(log, LOST, log.partition("/")[0], remedy=_PUT_BACK_REMEDY)
        for table in self._unreadable:
            if not any(path.startswith(f"{table}/{LOG}/") for path in self.damage):
                # What it lacks, nothing says.
                self.damage[table] = log_damage(table, f"{table}/{LOG}", UNREADABLE, self._lake.root)

    def _listed(self, folder: str) -> Iterator[str]:
        """Yield the files that the list of a folder names, where it has one that is sound."""
        path = f"{folder}/{CHECKSUM_LIST}"
        if path in self._files and path not in self.damage:
            for name in json.loads(self._stored.read(path)):
                yield f"{folder}/{name}.safetensors"

    def _is_missed(self, log: str) -> bool:
        """Whether a table needs a log file that is gone: it has a log, and no newer checkpoint."""
        folder, _, name = log.rpartition("/")
        names = [path.rpartition("/")[2] for path in self._logs if path.startswith(f"{folder}/")]
        newest = max((other for other in names if other.endswith(".checkpoint.parquet")), default="")
        return bool(names) and name not in names and name > newest

    def _looked_at(self, path: str) -> tuple[State, Damage | None]:
        if path == FORMAT_FILE:
            return State.SOUND, None
        if path in self._logs:
            return self._log(path)
        if _is_seal(path):
            return self._seal(path)
        if path.partition("/")[0] in TABLES and path.endswith(".parquet"):
            return self._data_file(path)
        return self._page(path) if path.endswith(".html") else self._pointed_to(path)

    def _page(self, path: str) -> tuple[State, Damage | None]:
        if path in self._pages:
            line, owner = self._pages[path]
            state = look_at_page(self._stored, line)
            return state, Damage(path, OTHER_CONTENT, owner.table, owner.partition) if state is State.DAMAGED else None
        if self._damaged_rows & {schema.name for schema in PAGE_TABLES}:
            return State.DAMAGED, Damage(path, NO_CHECKSUMS, remedy="what makes its row again makes it again")
        return State.UNCHECKED, None

    def _data_file(self, path: str) -> tuple[State, Damage | None]:
        owner, state = self._data.get(path), look_at_data_file(self._stored, path)
        if state is State.UNCHECKED and not self._stored.reads_as_parquet(path):
            return State.DAMAGED, self._damage(path, UNREADABLE, owner)
        if state is not State.DAMAGED:
            return state, None
        is_known = data_file_checksums(self._stored, path) is not State.DAMAGED
        return state, self._damage(path, OTHER_CONTENT if is_known else NO_CHECKSUMS, owner)

    def _pointed_to(self, path: str) -> tuple[State, Damage | None]:
        owner = next((self._pointers[one] for one in (path, *_folders(path)) if one in self._pointers), None)
        try:
            state = look_at_named_file(self._stored, path)
        except FileNotFoundError:
            state = State.DAMAGED
        if state is State.UNCHECKED and path.endswith(".safetensors") and not _reads_as_tensors(self._lake, path):
            return State.DAMAGED, self._damage(path, UNREADABLE, owner)
        return state, self._damage(path, OTHER_CONTENT, owner) if state is State.DAMAGED else None

    def _log(self, path: str) -> tuple[State, Damage | None]:
        state = self._logs[path]
        if state is State.MENDED:
            return state, Damage(path, _PUT_BACK, path.partition("/")[0], remedy=_PUT_BACK_REMEDY)
        if state is State.DAMAGED or (state is State.UNCHECKED and not reads_as_log(self._stored, path)):
            return State.DAMAGED, log_damage(path.partition("/")[0], path, OTHER_CONTENT, self._lake.root)
        return state, None

    def _log_state(self, path: str) -> State:
        before = self._stored.read(path)
        state = look_at_log_file(self._stored, path)
        if state is State.MENDED and not self._stored.has(path):
            self.damage[path] = Damage(path, _PUT_BACK, path.partition("/")[0], remedy=_NOT_NEEDED_REMEDY)
        elif state is State.MENDED and self._stored.read(path) == before:
            # It was the copy that changed.
            self.damage[seal_path(path)] = Damage(seal_path(path), _PUT_BACK, remedy=_PUT_BACK_REMEDY)
            return State.SOUND
        return state

    def _seal(self, path: str) -> tuple[State, Damage | None]:
        if unsealed(self._stored.read(path)) is not None:
            return State.SOUND, None
        owner = self._data.get(sealed_path(path))
        return State.DAMAGED, self._damage(path, OTHER_CONTENT, owner)

    def _damage(self, path: str, what: str, owner: _Owner | None) -> Damage:
        if owner:
            return Damage(path, what, owner.table, owner.partition)
        table = path.partition("/")[0]
        if table in TABLES and path.endswith(".parquet"):
            return Damage(path, what, table, partition_of(path.partition("/")[2]), _UNUSED_REMEDY)
        return Damage(path, what, remedy=_UNUSED_REMEDY)

    def _read_table(self, name: str) -> None:
        """Read what a table's log and rows point to; what cannot be read is found damaged as a file."""
        schema = TABLES[name]
        try:
            table = self._lake.table(schema)
        except TableError as error:
            if isinstance(error, DamagedLakeError):
                self._unreadable.add(name)
            return
        if table is None:
            return
        self._data |= {path: _Owner(name, one) for path, one in data_files(table, schema, {}).items()}
        column = FILE_COLUMNS.get(name) or ("page" if schema in PAGE_TABLES else "")
        if not column:
            return
        for path, owner in [(path, owner) for path, owner in self._data.items() if owner.table == name]:
            for pointer in self._values(path, column):
                if schema in PAGE_TABLES:
                    self._pages[page_path(pointer)] = (pointer, owner)
                else:
                    self._pointers[pointer] = owner

    def _values(self, path: str, column: str) -> Iterator[str]:
        """Yield the values of a column in a data file; none of a file that is damaged, which is found by itself."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        try:
            if look_at_data_file(self._stored, path) is State.DAMAGED:
                self._damaged_rows.add(path.partition("/")[0])
                return
            content = pa.BufferReader(pa.py_buffer(self._stored.view(path)))
            parquet = pq.ParquetFile(content)
            if column in parquet.schema_arrow.names:
                yield from filter(None, pc.unique(parquet.read([column])[column]).to_pylist())
        except (pa.ArrowException, OSError):
            self._damaged_rows.add(path.partition("/")[0])


def _is_passed_over(path: str) -> bool:
    """Whether a file is no part of the lake's content: notes of damage, locks, and what is being written."""
    name = path.rpartition("/")[2]
    return path.startswith(f"{NOTES}/") or name.endswith(".lock") or name.startswith(".")


def _is_seal(path: str) -> bool:
    return path.startswith(f"{SEALS}/")


def _folders(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _reads_as_tensors(lake: Lake, path: str) -> bool:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        load(lake.stored.read(path))
    except (SafetensorError, ValueError, RuntimeError, OSError):
        return False
    return True
