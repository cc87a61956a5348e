"""Whether files hold the same bytes, of which of large files a part is compared."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

_BLOCK = 1 << 18
_BLOCKS = 256
_TENSOR_START = 1 << 12
_LARGEST_HEADER = 1 << 26


class Content(Protocol):
    """An open file, here or in a store, of which parts are read."""

    def seek(self, position: int, /) -> int:
        """Go to a byte."""

    def read(self, length: int, /) -> bytes:
        """Return as many bytes from there."""


def same_files(files: Sequence[Path], others: Sequence[Path]) -> bool:
    """Whether files have the same names and content."""
    return [file.name for file in files] == [file.name for file in others] and all(
        _same_bytes(one, two, _state(one), _state(two)) for one, two in zip(files, others, strict=True)
    )


def same_content(one: Content, two: Content, size: int) -> bool:
    """Whether two files of a size are the same.

    Up to 64 MiB they are compared whole, else in as many bytes evenly spread and where each tensor begins: training moves
    all weights of a tensor, but not all tensors: layer norms alone, or one layer.
    """
    parts = [(start, _BLOCK) for start in range(0, size, max(_BLOCK, -(-size // _BLOCKS)))]
    if size > _BLOCK * _BLOCKS:
        parts += [(start, _TENSOR_START) for start in _tensor_starts(one, size)]
    return all(_part(one, *part) == _part(two, *part) for part in parts)


def _part(content: Content, start: int, length: int) -> bytes:
    content.seek(start)
    return content.read(length)


def _state(file: Path) -> tuple[int, int]:
    state = file.stat()
    return state.st_size, state.st_mtime_ns


@lru_cache(maxsize=1 << 14)
def _same_bytes(file: Path, other: Path, state: tuple[int, int], other_state: tuple[int, int]) -> bool:
    if state[0] != other_state[0]:
        return False
    with file.open("rb") as one, other.open("rb") as two:
        return same_content(one, two, state[0])


def _tensor_starts(content: Content, size: int) -> list[int]:
    """Return where the tensors of a safetensors file begin; nothing of a file whose header cannot be read."""
    length = int.from_bytes(_part(content, 0, 8), "little")
    try:
        header = json.loads(content.read(length)) if length <= _LARGEST_HEADER else {}
        starts = [8 + length + tensor["data_offsets"][0] for name, tensor in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return []
    return [start for start in starts if isinstance(start, int) and 0 <= start < size]
