"""The files of a lake by their paths relative to its root, in a directory or an object store."""

import random
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from lorif_assets.config.secrets import kept_secret, secrets_of
from lorif_assets.errors import StoreError
from lorif_assets.lake.full_disks import writing_to

_TAKEN_AWAY = "InvalidBlockList"
"""Azure's word for a file whose pieces went with those of another process, which finished the same file meanwhile."""
_WRITES_AGAIN = (0.1, 0.4, 1.6, 3.2)
"""Seconds at most before it is written again."""
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}|.+#\d+")
"""Names of files in a directory that are being written: by `StoredFiles.write`, and by delta-rs."""


def is_unfinished(path: str) -> bool:
    """Whether a file was being written, and still is or never will be: it gets its name when it is whole."""
    return _UNFINISHED.fullmatch(PurePosixPath(path).name) is not None


@dataclass(frozen=True)
class StoredFiles:
    """Reads and writes whole files below a root.

    All that it does raises a `StoreError` where the root is in an object store that cannot be reached, or refuses.
    """

    root: str
    storage_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether the root is a directory of this machine."""
        return "://" not in self.root

    @property
    def system(self) -> pafs.FileSystem:
        """The files for pyarrow, by the same paths."""
        if self.is_local:
            return pafs.SubTreeFileSystem(self.root, pafs.LocalFileSystem())
        from deltalake.fs import DeltaStorageHandler

        return pafs.PyFileSystem(DeltaStorageHandler(self.root, dict(self.storage_options) or None))

    def where(self, path: str) -> str:
        """Return where a file is, for a person and for other programs."""
        return f"{self.root.rstrip('/')}/{path}"

    def read(self, path: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: there is none.
        """
        if self.is_local:
            return Path(self.root, path).read_bytes()
        with self.reaching(), self.system.open_input_file(path) as stream:
            return bytes(stream.read())

    def has(self, path: str) -> bool:
        """Whether there is such a file."""
        with self.reaching():
            return bool(self.system.get_file_info(path).type is pafs.FileType.File)

    def reads_as_parquet(self, path: str) -> bool:
        """Whether all of a file can be read as Parquet."""
        try:
            content = self.view(path)
        except OSError:
            return False
        try:
            pq.read_table(pa.BufferReader(pa.py_buffer(content)), use_threads=False)
        except (pa.ArrowException, OSError):
            return False
        return True

    def view(self, path: str) -> memoryview:
        """Return the content of a file; a local one is mapped into memory, and read where it is looked at.

        Raises:
            FileNotFoundError: there is none.
        """
        if not self.is_local or not Path(self.root, path).stat().st_size:
            return memoryview(self.read(path))
        with pa.memory_map(str(Path(self.root, path))) as mapped:
            return memoryview(mapped.read_buffer())

    def write(self, path: str, content: bytes) -> None:
        """Write a file in one step, replacing one of the same name; of several processes that do, the last one wins.

        Raises:
            CannotWriteError: the directory takes nothing more.
        """
        if self.is_local:
            with writing_to(self.root):
                self._write_local(path, content)
            return
        with self.reaching():
            for seconds in _WRITES_AGAIN:
                try:
                    self._put(path, content)
                except OSError as error:
                    if _TAKEN_AWAY not in str(error):
                        raise
                    time.sleep(random.uniform(0, seconds))  # noqa: S311
                else:
                    return
            self._put(path, content)

    def _write_local(self, path: str, content: bytes) -> None:
        file = Path(self.root, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f".{uuid.uuid4().hex}")
        try:
            partial.write_bytes(content)
            partial.replace(file)
        except OSError:
            # On a full disk, what was begun would take the room that the next attempt needs.
            partial.unlink(missing_ok=True)
            raise

    def _put(self, path: str, content: bytes) -> None:
        # delta-rs's streams take `bytes` only, which pyarrow hands on when it flushes a buffer, not when it writes past
        # one: all of the content has to fit in it.
        with self.system.open_output_stream(path, compression=None, buffer_size=len(content) + 1) as stream:
            stream.write(content)

    def sizes(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Yield every file below a folder with its size, in the order of their paths."""
        selector = pafs.FileSelector(folder, allow_not_found=True, recursive=True)
        try:
            with self.reaching():
                found = [info for info in self.system.get_file_info(selector) if info.type is pafs.FileType.File]
        except NotADirectoryError:
            return
        yield from sorted((info.path, info.size) for info in found)

    def delete(self, path: str) -> None:
        """Delete a file; one that is gone already is no error."""
        try:
            with self.reaching():
                self.system.delete_file(path)
        except FileNotFoundError:
            return

    def interrupted(self, path: str) -> StoreError:
        """Return the error for what is sound in a store, and could not be read for a time."""
        return StoreError(f"{self.where(path)} could not be read for a time, and is sound now: start this again")

    @contextmanager
    def reaching(self) -> Iterator[None]:
        """Say in a sentence what a store cannot do in the block; that a file is not there is left to the caller.

        Raises:
            StoreError: it cannot be reached, or refuses.
        """
        if self.is_local:
            yield
            return
        try:
            with kept_secret(secrets_of(self.storage_options)):
                yield
        except FileNotFoundError:
            raise
        except OSError as error:
            where = (
                f"the store of the lake {self.root} refuses, or cannot be reached; check `lake.root`, "
                "`lake.storage_options` and the environment"
            )
            raise StoreError.of(where, error) from error
