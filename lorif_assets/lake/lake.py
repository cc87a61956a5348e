"""The lake: its tables, and the files that their rows point to.

Gradient factors are streamed file by file, column by column. Dense tensors of curvature states are safetensors files beside the
tables, never overwritten, found through the row that points to them.
"""

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lorif_assets.errors import DamagedLakeError, LorifError, TableError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.checksums import ParquetChecksums, checksum
from lorif_assets.lake.damage import LOST, NO_CHECKSUMS, OTHER_CONTENT, Damage, unreadable
from lorif_assets.lake.delta_paths import partition_of
from lorif_assets.lake.kept_reads import KeptReads
from lorif_assets.lake.lake_tables import LakeTables
from lorif_assets.lake.named_checksums import CHECKSUM_LIST, look_at_named_file, page_line
from lorif_assets.lake.open_factors import OpenFactors
from lorif_assets.lake.seals import State, data_file_checksums
from lorif_assets.lake.tables import FILE_COLUMNS, TABLES

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FactorFile:
    """One shard's gradient factors in one version of the table: a Parquet file, relative to the table's root."""

    shard: str
    path: str
    rows: int


@dataclass(frozen=True)
class Lake(LakeTables):
    """All tables and tensors of a project."""

    kept: KeptReads | None = field(default=None, compare=False)
    """What is kept of its files in memory; None: nothing."""

    def factor_files(self, checkpoint: str) -> list[FactorFile]:
        """Return the files of a checkpoint's gradient factors, in the order of their shards."""
        table = self.table(GRADIENT_FACTORS)
        if table is None:
            return []
        actions = pa.table(table.get_add_actions(flatten=True))
        actions = actions.filter(pc.equal(actions["partition.checkpoint"], checkpoint))
        return sorted(
            (
                FactorFile(row["partition.shard"], row["path"], row["num_records"])
                for row in actions.select(["partition.shard", "path", "num_records"]).to_pylist()
            ),
            key=lambda file: (file.shard, file.path),
        )

    def stream_factors(
        self, files: Sequence[FactorFile], columns: Sequence[str], rows: int
    ) -> Iterator[tuple[FactorFile, pa.RecordBatch]]:
        """Yield blocks of at most `rows` rows with the given columns only, file after file."""
        for file in files:

            def read(file: FactorFile = file) -> Iterator[pa.RecordBatch]:
                with self.open_factors(file) as parquet:
                    # For a short file, threads take longer to start than to read.
                    yield from parquet.batches(rows, columns, use_threads=file.rows >= rows)

            blocks = self.kept.columns(file.path, columns, rows, read) if self.kept else read()
            for batch in blocks:
                yield file, batch

    def open_factors(self, file: FactorFile) -> OpenFactors:
        """Open one shard's factors.

        Raises:
            DamagedLakeError: the file is gone, not what was written, or cannot be read.
        """
        # Delta logs hold percent-encoded paths.
        path = f"{GRADIENT_FACTORS.name}/{unquote(file.path)}"

        def damage(what: str) -> LorifError:
            if not self.is_local and self.stored.reads_as_parquet(path):
                # The store did not answer for a time: nothing is to be made again.
                return self.stored.interrupted(path)
            return self._data_damage(GRADIENT_FACTORS, path, partition_of(file.path), what)

        try:
            if not self.is_local:
                with self.stored.reaching():
                    source = self.files.open_input_file(path)
                return OpenFactors(lambda: pq.ParquetFile(source), None, None, damage)
            view, sums = self.stored.view(path), data_file_checksums(self.stored, path)
        except FileNotFoundError as error:
            raise DamagedLakeError(
                f"the file {path} of the lake {self.root} is gone (vacuumed?); materialize `gradient_factors` for the "
                f"shard {file.shard!r} again: {damage(LOST)}"
            ) from error
        if sums is State.DAMAGED:
            raise damage(NO_CHECKSUMS)
        checksums = sums if isinstance(sums, ParquetChecksums) else None
        return OpenFactors(lambda: pq.ParquetFile(pa.py_buffer(view)), view, checksums, damage)

    def write_tensors(self, folder: str, tensors: Mapping[str, "torch.Tensor"]) -> str:
        """Write tensors to a safetensors file of a new name, with its checksum; return its path relative to the root."""
        return self.write_named_file(f"{folder}/{uuid.uuid4().hex}", ".safetensors", _tensor_bytes(tensors))

    def write_tensor_folder(
        self, folder: str, names: Sequence[str], tensors: "Callable[[str], Mapping[str, torch.Tensor]]"
    ) -> str:
        """Write a safetensors file for each name to a folder of a new name, and return its path relative to the root.

        The folder's name has the checksum of the list of the files' checksums. It is known before the first is written, so
        that `tensors` is called twice for each name, and no two files are in memory at once.
        """
        sums = {name: checksum(_tensor_bytes(tensors(name))) for name in names}
        listed = json.dumps(sums).encode()
        path = f"{folder}/{uuid.uuid4().hex}-{checksum(listed)}"
        for name in names:
            self.stored.write(f"{path}/{name}.safetensors", _tensor_bytes(tensors(name)))
        self.stored.write(f"{path}/{CHECKSUM_LIST}", listed)
        return path

    def write_file(self, path: str, content: bytes) -> str:
        """Write a file, for instance a report, replacing one of the same name, and return where it is."""
        self.stored.write(path, content)
        return self.stored.where(path)

    def write_page(self, path: str, content: bytes) -> tuple[str, str]:
        """Write a page; return where it is, and what the column `page` of its row says."""
        return self.write_file(path, content), page_line(path, content)

    def write_named_file(self, stem: str, suffix: str, content: bytes) -> str:
        """Write a file with its checksum in its name; return its path relative to the root."""
        path = f"{stem}-{checksum(content)}{suffix}"
        self.stored.write(path, content)
        return path

    def read_file(self, path: str) -> bytes:
        """Return the content of a file that `write_file` wrote.

        Raises:
            DamagedLakeError: the file is gone, or not what its name says.
        """
        try:
            self._require_sound(path)
            return self.stored.read(path)
        except FileNotFoundError as error:
            raise self._file_damage(path, LOST) from error

    def read_tensors(self, path: str) -> dict[str, "torch.Tensor"]:
        """Return the tensors of a file that `write_tensors` or `write_tensor_folder` wrote.

        Raises:
            DamagedLakeError: the file is gone, or not what was written.
        """
        return self.kept.tensors(path, lambda: self._loaded(path)) if self.kept else self._loaded(path)

    def _loaded(self, path: str) -> "dict[str, torch.Tensor]":
        from safetensors import SafetensorError
        from safetensors.torch import load, load_file

        try:
            self._require_sound(path)
            # A local file is mapped into memory, which saves two copies of it.
            return load_file(Path(self.root, path)) if self.is_local else load(self.stored.read(path))
        except FileNotFoundError as error:
            raise self._file_damage(path, LOST) from error
        except (SafetensorError, ValueError, RuntimeError) as error:
            raise self._file_damage(path, unreadable(error)) from error

    def _require_sound(self, path: str) -> None:
        """Compare a file that a row points to with the checksum of its name, or of its folder's list; older ones have none.

        Raises:
            DamagedLakeError: they differ.
            FileNotFoundError: it is gone, or the list.
        """
        if look_at_named_file(self.stored, path) is State.DAMAGED:
            raise self._file_damage(path, OTHER_CONTENT)

    def _file_damage(self, path: str, what: str) -> DamagedLakeError:
        """Return the error for a file that a row points to, and leave a note of it."""
        for table, column in FILE_COLUMNS.items():
            schema = TABLES[table]
            try:
                rows = self.read(schema, [*schema.partition_by, column]).unique()
            except TableError:
                # More is damaged than this file; whoever reads that table is told.
                continue
            for row in rows.iter_rows(named=True):
                if row[column] and (path == row[column] or path.startswith(f"{row[column]}/")):
                    partition = {name: row[name] for name in schema.partition_by}
                    return self._noted(Damage(path, what, table, partition)).error(self.root)
        if what == LOST:
            return DamagedLakeError(
                f"the lake {self.root} has lost the file {path} that a row points to; materialize that row's partition again"
            )
        return DamagedLakeError(
            f"the lake {self.root} holds damaged tensors in the file {path} that a row points to; materialize that row's "
            "partition again"
        )


def _tensor_bytes(tensors: Mapping[str, "torch.Tensor"]) -> bytes:
    from safetensors.torch import save

    return bytes(save({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}))
