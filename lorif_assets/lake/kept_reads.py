"""What a process keeps of the lake's files from one question to the next, within a budget of bytes.

Only files that are never overwritten are kept: factors and tensors have a new name in each version of the lake. Which
of them belong to the newest snapshot is looked up at each question, so that an answer never mixes two of them.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import torch


@dataclass(eq=False)
class KeptReads:
    """Columns of factors and tensors of curvatures, by the files that they were read from; safe to use in threads.

    What does not fit into `budget_bytes` is read again each time.
    """

    budget_bytes: int
    _columns: dict[tuple[str, str], pa.ChunkedArray] = field(default_factory=dict)
    _tensors: "dict[str, dict[str, torch.Tensor]]" = field(default_factory=dict)
    _bytes: int = 0
    _lock: Lock = field(default_factory=Lock)

    @property
    def kept_bytes(self) -> int:
        """The bytes that are kept now."""
        return self._bytes

    def columns(
        self, path: str, names: Sequence[str], rows: int, read: Callable[[], Iterator[pa.RecordBatch]]
    ) -> Iterator[pa.RecordBatch]:
        """Yield columns of a file in blocks of at most `rows` rows: from memory, or as `read` yields them.

        Args:
            path: of the file.
            names: of the columns.
            rows: of a block.
            read: yields blocks with these columns.
        """
        with self._lock:
            kept = [self._columns.get((path, name)) for name in names]
        if all(column is not None for column in kept):
            yield from pa.Table.from_arrays(kept, names=list(names)).to_batches(max_chunksize=rows)
            return
        blocks: list[pa.RecordBatch] = []
        size = 0
        for block in read():
            size += block.nbytes
            if self._bytes + size <= self.budget_bytes:
                blocks.append(block)
            else:
                blocks.clear()
            yield block
        if blocks and self._bytes + size <= self.budget_bytes:
            self._keep(path, pa.Table.from_batches(blocks))

    def tensors(self, path: str, read: "Callable[[], dict[str, torch.Tensor]]") -> "dict[str, torch.Tensor]":
        """Return the tensors of a file: from memory, or as `read` returns them. Nobody may write to them."""
        with self._lock:
            kept = self._tensors.get(path)
        if kept is None:
            kept = read()
            size = sum(tensor.nbytes for tensor in kept.values())
            with self._lock:
                if path not in self._tensors and self._bytes + size <= self.budget_bytes:
                    self._tensors[path] = kept
                    self._bytes += size
        return dict(kept)

    def retain(self, paths: Collection[str]) -> None:
        """Let go of what is kept of all files but these."""
        with self._lock:
            for path in [path for path in self._tensors if path not in paths]:
                self._bytes -= sum(tensor.nbytes for tensor in self._tensors.pop(path).values())
            for key in [key for key in self._columns if key[0] not in paths]:
                self._bytes -= self._columns.pop(key).nbytes

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._columns.clear()
            self._tensors.clear()
            self._bytes = 0

    def _keep(self, path: str, rows: pa.Table) -> None:
        with self._lock:
            for name, column in zip(rows.column_names, rows.columns, strict=True):
                if (path, name) not in self._columns and self._bytes + column.nbytes <= self.budget_bytes:
                    self._columns[path, name] = column
                    self._bytes += column.nbytes
