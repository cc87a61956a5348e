"""Files below a URL of an object store (s3://, gs://, az://, abfss://), and their copies on this machine.

The store is reached as the lake's is, by delta-rs: the same options, the same variables of the environment, and the same
retries of requests that are refused with 503 or not answered. A copy has the time of its object, so that whatever goes by
sizes and times of files says the same on every machine.
"""

import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import quote

import pyarrow.fs as pafs

from lorif_assets.errors import StoreError
from lorif_assets.machine_locks import MachineLock
from lorif_assets.scratch_folders import scratch_folder

_URL = re.compile(r"(?P<scheme>s3|s3a|gs|gcs|az|azure|adl|abfs|abfss)://(?P<path>.+)")
# Of a URL behind its scheme; an account of Azure stands behind an @.
_KEPT = "/@:"
# A look lists a source once, and asks for each of its files by name soon after.
_TRUSTED_SECONDS = 30.0
_listed: "dict[str, tuple[float, StoredFile]]" = {}


@dataclass(frozen=True)
class StoredFile:
    """A file: its path below the store's URL, its bytes, and when it was written, in nanoseconds."""

    name: str
    size: int
    modified: int


@dataclass(frozen=True)
class ObjectStore:
    """The files below a URL, with delta-rs's options; what they do not say comes from the environment."""

    url: str
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def at(cls, url: str, options: Mapping[str, str] | None = None) -> "ObjectStore":
        """Return the store at a URL."""
        return cls(url.rstrip("/"), tuple(sorted((options or {}).items())))

    @property
    def folder(self) -> Path:
        """Where copies are on this machine: below $XDG_CACHE_HOME/lorif/stores."""
        found = _URL.fullmatch(self.url)
        if found is None:
            raise StoreError(f"{self.url} is no address of an object store: expected s3://, gs://, az:// or abfss://")
        return Path(copies_folder(), found["scheme"], *PurePosixPath(found["path"]).parts)

    def files(self) -> list[StoredFile]:
        """Return the files, sorted by name; none where nothing is there.

        Raises:
            StoreError: the store cannot be reached, or refuses.
        """
        try:
            found = self._files.get_file_info(pafs.FileSelector("", recursive=True, allow_not_found=True))
        except OSError as error:
            raise StoreError.of(f"{self.url} cannot be listed", error) from error
        files = [StoredFile(one.path, one.size, one.mtime_ns) for one in found if one.type is pafs.FileType.File]
        now = time.monotonic()
        _listed.update({f"{self.url}/{file.name}": (now, file) for file in files})
        return sorted(files, key=lambda file: file.name)

    def file(self, name: str) -> StoredFile | None:
        """Return one file, or None where there is none.

        Raises:
            StoreError: the store cannot be reached, or refuses.
        """
        known = _listed.get(f"{self.url}/{name}")
        if known and time.monotonic() - known[0] < _TRUSTED_SECONDS:
            return known[1]
        parent, _, own = name.rpartition("/")
        try:
            # Asked for by name alone, a store does not tell the time.
            found = self._files.get_file_info(pafs.FileSelector(parent, allow_not_found=True))
        except OSError as error:
            raise StoreError.of(f"{self.url} cannot be listed", error) from error
        return next(
            (StoredFile(name, one.size, one.mtime_ns) for one in found if one.base_name == own and one.is_file), None
        )

    def copies(self, files: Iterable[StoredFile]) -> Path:
        """Return the folder with copies of these files, of which only those that have changed are fetched.

        Raises:
            StoreError: one cannot be read.
        """
        for file in files:
            self._copy(file)
        return self.folder

    @contextmanager
    def opened(self, file: StoredFile) -> Iterator[IO[bytes]]:
        """Yield a file to read parts of: its copy, where that is there.

        Raises:
            StoreError: it cannot be read.
        """
        copy = self.folder / file.name
        try:
            with copy.open("rb") if _is_copy(copy, file) else self._files.open_input_file(file.name) as stream:
                yield stream
        except OSError as error:
            raise StoreError.of(f"{self.url} cannot be read ({file.name})", error) from error

    def forget(self, files: Iterable[StoredFile]) -> None:
        """Remove copies of whatever else was below the URL."""
        kept = {self.folder / file.name for file in files}
        for path in sorted(self.folder.rglob("*")) if self.folder.is_dir() else ():
            if path.is_file() and path not in kept:
                path.unlink(missing_ok=True)

    def _copy(self, file: StoredFile) -> None:
        copy = self.folder / file.name
        if _is_copy(copy, file):
            return
        with MachineLock(f"copy-{uuid.uuid5(uuid.NAMESPACE_URL, f'{self.url}/{file.name}').hex}"):
            if _is_copy(copy, file):
                return
            try:
                copy.parent.mkdir(parents=True, exist_ok=True)
                with scratch_folder(beside=copies_folder()) as folder:
                    partial = folder / copy.name
                    with self._files.open_input_file(file.name) as source, partial.open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 24)
                    os.utime(partial, ns=(file.modified, file.modified))
                    # A reader sees the whole file or none.
                    partial.replace(copy)
            except OSError as error:
                raise StoreError.of(f"{self.url} cannot be read ({file.name})", error) from error

    @cached_property
    def _files(self) -> pafs.FileSystem:
        from deltalake.fs import DeltaStorageHandler

        # delta-rs takes the path for a URL's, which ends at `#` and `?`, and decodes it.
        scheme, separator, path = self.url.partition("://")
        encoded = f"{scheme}{separator}{quote(path, safe=_KEPT)}"
        return pafs.PyFileSystem(DeltaStorageHandler(encoded, dict(self.options) or None))


def copies_folder() -> Path:
    """Return where the copies of all stores are."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "lorif", "stores")


def is_store_url(path: str) -> bool:
    """Whether a path is the address of an object store."""
    return _URL.fullmatch(path) is not None


def copy_of(url: str, options: Mapping[str, str] | None = None) -> Path:
    """Return the copy of one file by its URL, as the file is now.

    Raises:
        StoreError: it cannot be read, or there is no such file.
    """
    parent, _, name = url.rpartition("/")
    store = ObjectStore.at(parent, options)
    file = store.file(name)
    if file is None:
        raise StoreError(f"there is no file {url}")
    return store.copies([file]) / name


def _is_copy(path: Path, file: StoredFile) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    return (state.st_size, state.st_mtime_ns) == (file.size, file.modified)
