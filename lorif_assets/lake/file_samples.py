"""Samples of a file's content, by which a file is told from another one of the same size and time.

Copies that keep times, archives and images with one time for all files, and clocks that were set bring such files about.
"""

from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

MARK = "~"
"""Before the sample in the version of a file; versions that were stored before there were samples have none."""

_WHOLE = 1 << 16
_PIECE = 1 << 12
_PLACES_BETWEEN = 6


def sample_of(file: Path) -> str:
    """Return a hash of a file's head, tail and some places between, of a file up to 64 KiB of all its bytes.

    Within a process, a file is read again only when its inode was written to. Empty where the file cannot be read.
    """
    try:
        found = file.stat()
        return _sample(file, found.st_size, (found.st_ino, found.st_mtime_ns, found.st_ctime_ns))
    except OSError:
        return ""


def sample_of_folder(folder: Path) -> str:
    """Return a hash of the names, sizes and samples of a folder's files, those below it too; hidden files are left out.

    It is the same for a copy of the folder elsewhere. Empty where there is no such folder.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _is_hidden(path.relative_to(folder)))
    if not files:
        return ""
    found = [(path.relative_to(folder).as_posix(), path.stat().st_size, sample_of(path)) for path in files]
    return blake2b(repr(found).encode(), digest_size=16).hexdigest()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def with_sample(version: str, sample: str) -> str:
    """Return a version with the sample of what it is the version of, if there is one."""
    return f"{version}{MARK}{sample}" if sample else version


def is_same_version(stored: str, current: str) -> bool:
    """Whether a stored version is the current one, apart from samples that were not taken when it was stored.

    A version may be several words; each has its own sample.
    """
    before, now = stored.split(" "), current.split(" ")
    return len(before) == len(now) and all(
        old in {new, new.partition(MARK)[0]} for old, new in zip(before, now, strict=True)
    )


@lru_cache(maxsize=1 << 16)
def _sample(file: Path, size: int, state: tuple[int, int, int]) -> str:
    del state  # part of the cache's key only
    digest = blake2b(digest_size=8)
    with file.open("rb") as stream:
        if size <= _WHOLE:
            digest.update(stream.read())
            return digest.hexdigest()
        for start in _places(size):
            stream.seek(start)
            digest.update(stream.read(_PIECE))
    return digest.hexdigest()


def _places(size: int) -> list[int]:
    """Return where pieces begin: at the head, at the tail, and where a hash of the size says."""
    last = size - _PIECE
    hashes = (blake2b(f"{size}-{k}".encode(), digest_size=8).digest() for k in range(_PLACES_BETWEEN))
    return [0, *(int.from_bytes(found) % last for found in hashes), last]
