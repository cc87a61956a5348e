"""Directories that `datasets` saved: how many rows they have, and slices of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from lorif_assets.config.limits import MIB, ReadLimits
from lorif_assets.config.sources import Source, SourceFormat
from lorif_assets.data.formats.arrow_soundness import refuse_unsound
from lorif_assets.data.formats.limits import beyond, refuse_large, refuse_many
from lorif_assets.data.formats.parquet import of_table, readable, refuse_repeated_fields
from lorif_assets.data.formats.places import place_of
from lorif_assets.data.formats.reader import FileReader, FileSlice, RawShard, ShardSlice, slices_of

_STATE = "state.json"


class SavedDataset(FileReader):
    """What `Dataset.save_to_disk` wrote, a directory in the place of a file."""

    kind = SourceFormat.DATASETS
    marks = ("dataset_info.json", _STATE)

    def state_file(self, path: Path) -> Path:
        """Return the file that every save writes."""
        return path / _STATE

    def cut(self, path: Path, state: str, rows_per_slice: int, limits: ReadLimits) -> Iterator[FileSlice]:
        """Yield the slices of one directory."""
        del state
        return slices_of(_count(path, limits), rows_per_slice)

    def rows(self, path: Path, piece: ShardSlice, limits: ReadLimits) -> RawShard:
        """Return the rows of one slice, as stored: images and audio are not decoded."""
        return of_table(_read(path, piece.offset, piece.rows, limits), piece)

    def table(self, source: Source, piece: ShardSlice, base: Path) -> pa.Table:
        """Return the rows of one slice with their types."""
        return _read(
            place_of(piece.uri, base, source.revealed_storage_options), piece.offset, piece.rows, source.limits
        )


READER = SavedDataset()


def _count(path: Path, limits: ReadLimits) -> int:
    from datasets import Dataset  # slow to import, and few sources need it

    with _loadable(path):
        for name in SavedDataset.marks:
            if (size := (path / name).stat().st_size) > limits.header_mib * MIB:
                raise beyond(path / name, f"has {size:,} bytes", "header_mib", limits)
        state = json.loads((path / _STATE).read_text())
        files = state["_data_files"]
        if not files:
            return 0  # `datasets` saves a dataset without rows, but fails to load it
        for file in files:
            with pa.memory_map(str(path / file["filename"])) as stored, pa.ipc.open_stream(stored) as stream:
                refuse_many(path, 0, len(stream.schema), limits)
                refuse_repeated_fields(stream.schema, str(path / file["filename"]))
        rows = int(Dataset.load_from_disk(str(path)).num_rows)
    refuse_many(path, rows, 0, limits)
    return rows


def _read(path: Path, offset: int, rows: int, limits: ReadLimits) -> pa.Table:
    from datasets import Dataset  # slow to import, and few sources need it

    with _loadable(path):
        found: pa.Table = Dataset.load_from_disk(str(path)).with_format("arrow")[offset : offset + rows]
        refuse_unsound(found)
    refuse_large(path, found.nbytes, limits)
    return found


@contextmanager
def _loadable(path: Path) -> Iterator[None]:
    """As `readable`, also where `datasets` trips over the shape of what it reads."""
    with readable(path, "saved `datasets` directory"):
        try:
            yield
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"its {_STATE} or dataset_info.json is not what `datasets` writes ({type(error).__name__}: {error})"
            ) from error
