"""A checkpoint's gradient factors in the lake: which data they hold, whether they fit together, and their blocks."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from lorif_assets.attribution.recipes.block_rows import block_rows, scanned_numbers
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.recipe import Recipe
from lorif_assets.errors import MismatchError, TableError
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.factor_row_groups import read_rows
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.lake import FactorFile, Lake

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.factors.low_rank import GradientFactors
    from lorif_assets.mathematics.factors.packed_signs import LayerFactors


@dataclass(frozen=True)
class FactorSelection:
    """Factors of single examples, one block for each file that holds some, and the stored bytes that were read."""

    blocks: "tuple[dict[str, GradientFactors], ...]"
    bytes_read: int


@dataclass(frozen=True)
class StoredFactors:
    """The factors of all shards of one checkpoint, computed from one recipe, one set of weights and one tokenizer."""

    lake: Lake
    checkpoint: str
    weights_hash: str
    files: tuple[FactorFile, ...]
    shard_hashes: dict[str, str]
    layer_shapes: dict[str, tuple[int, int]]
    numbers: dict[str, int]
    """Of one example's factors in each layer, once they are decoded."""
    codec: str
    projection: str
    bases_fingerprint: str
    """Fingerprint of the bases that gradients were whitened in; empty without whitening."""
    fisher: dict[str, str]
    """For each shard the folder of its sums of squared rotated gradients."""

    @property
    def n_examples(self) -> int:
        """Examples of all shards."""
        return sum(file.rows for file in self.files)

    @property
    def first_positions(self) -> dict[str, int]:
        """For each shard the position of its first example in the order of `blocks`."""
        starts = accumulate((file.rows for file in self.files), initial=0)
        return {file.shard: start for file, start in zip(self.files, starts, strict=False)}

    def blocks(
        self,
        layers: Sequence[str],
        rows: int | None,
        device: "torch.device",
        files: Sequence[FactorFile] | None = None,
    ) -> "Iterator[dict[str, GradientFactors]]":
        """Yield the factors of some layers, at most `rows` examples at a time, in the order of shards and rows.

        The rest of a file and the short files after it share a block, so that many small shards cost little more than one.

        Args:
            layers: the columns to read.
            rows: examples of a block; None: as many as fit (`block_rows`).
            device: where the blocks go.
            files: files of the same checkpoint and recipe to read in place of the current ones, for instance replaced ones.

        Raises:
            TableError: a file is gone, or has no values for a layer.
        """
        from lorif_assets.mathematics.factors.codec import FactorCodec, decode

        codec = FactorCodec(self.codec)
        rows = rows or block_rows(sum(self._numbers_of(layers).values()), device)
        for block in self._stored_blocks(layers, rows, device, files):
            yield {layer: decode(data, codec, *self.layer_shapes[layer]) for layer, data in block.items()}

    def scan_blocks(
        self,
        layers: Sequence[str],
        rows: int | None,
        device: "torch.device",
        files: Sequence[FactorFile] | None = None,
    ) -> "Iterator[dict[str, LayerFactors]]":
        """Yield what `blocks` yields in the form that is scored fastest on the device: on a CPU, signs as they are stored.

        Raises:
            TableError: a file is gone, or has no values for a layer.
        """
        from lorif_assets.mathematics.factors.codec import FactorCodec, scored_form

        codec = FactorCodec(self.codec)
        rows = rows or block_rows(scanned_numbers(self._numbers_of(layers), self.codec, device), device)
        for block in self._stored_blocks(layers, rows, device, files):
            yield {layer: scored_form(data, codec, *self.layer_shapes[layer]) for layer, data in block.items()}

    def _numbers_of(self, layers: Sequence[str]) -> dict[str, int]:
        return {layer: self.numbers[layer] for layer in layers}

    def _stored_blocks(
        self, layers: Sequence[str], rows: int, device: "torch.device", files: Sequence[FactorFile] | None
    ) -> "Iterator[dict[str, torch.Tensor]]":
        """Yield the factors of some layers as bytes [n, bytes] on a device."""
        for pieces in _gathered(self.lake.stream_factors(self.files if files is None else files, layers, rows), rows):
            joined = pieces[0][1] if len(pieces) == 1 else _joined([batch for _, batch in pieces])
            yield {layer: _on_device(_value_bytes(joined, layer, pieces), device) for layer in layers}

    def adjacent(self, files: Sequence[FactorFile]) -> "Iterator[tuple[int, tuple[FactorFile, ...]]]":
        """Cut some of the files, in their order, into stretches without a gap, each with its first position."""
        first_positions = self.first_positions
        stretch: list[FactorFile] = []
        end = 0
        for file in files:
            first = first_positions[file.shard]
            if stretch and first != end:
                yield first_positions[stretch[0].shard], tuple(stretch)
                stretch = []
            stretch.append(file)
            end = first + file.rows
        if stretch:
            yield first_positions[stretch[0].shard], tuple(stretch)

    def rows(self, layers: Sequence[str], positions: Sequence[int], device: "torch.device") -> "FactorSelection":
        """Return the factors of single examples, read by row group, as one block for each file.

        Args:
            layers: the columns to read.
            positions: of the examples in the order of `blocks`, ascending, each once.
            device: where the blocks go.

        Raises:
            TableError: a file is gone, or has no values for a layer.
        """
        from lorif_assets.mathematics.factors.codec import FactorCodec, decode

        chosen, codec, first = np.asarray(positions, dtype=np.int64), FactorCodec(self.codec), 0
        blocks, bytes_read = [], 0
        for file in self.files:
            inside = chosen[(chosen >= first) & (chosen < first + file.rows)] - first
            first += file.rows
            if not len(inside):
                continue
            read = read_rows(self.lake, file, layers, inside.tolist())
            bytes_read += read.bytes_read
            piece = [(file, read.batch)]
            values = {layer: _value_bytes(read.batch, layer, piece).to(device) for layer in layers}
            blocks.append({layer: decode(data, codec, *self.layer_shapes[layer]) for layer, data in values.items()})
        return FactorSelection(tuple(blocks), bytes_read)

    def positions(self, shards: Collection[str]) -> dict[tuple[str, str], int]:
        """Return the position in the order of `blocks` of every example of some shards, by (shard, example id)."""
        positions: dict[tuple[str, str], int] = {}
        first = 0
        for file in self.files:
            if file.shard in shards:
                batches = self.lake.stream_factors([file], ["example_id"], file.rows)
                ids = [name for _, batch in batches for name in batch.column("example_id").to_pylist()]
                positions |= {(file.shard, name): first + row for row, name in enumerate(ids)}
            first += file.rows
        return positions

    def example_ids(self, positions: Sequence[int]) -> dict[int, tuple[str, str]]:
        """Return (example_id, shard) of examples by their position in the order of `blocks`."""
        chosen, first = np.unique(np.asarray(positions, dtype=np.int64)), 0
        ids_by_position: dict[int, tuple[str, str]] = {}
        for file in self.files:
            inside = chosen[(chosen >= first) & (chosen < first + file.rows)]
            if len(inside):
                batches = [batch for _, batch in self.lake.stream_factors([file], ["example_id"], file.rows)]
                ids = pa.Table.from_batches(batches).column("example_id").take(pa.array(inside - first)).to_pylist()
                ids_by_position |= {int(at): (name, file.shard) for at, name in zip(inside, ids, strict=True)}
            first += file.rows
        return ids_by_position


def stored_factor_versions(lake: Lake, checkpoint: str) -> dict[str, str]:
    """Return the data version of each shard whose factors are stored, as `versions.factor_version` computes it."""
    columns = ["recipe_hash", "weights_hash", "tokenizer_hash", "shard_hash", "bases"]
    rows = file_constants(lake, GRADIENT_FACTORS, ["shard", *columns], checkpoint=checkpoint)
    return {row["shard"]: content_hash([row[column] for column in columns]) for row in rows.iter_rows(named=True)}


def stored_factors(lake: Lake, record: CheckpointRecord, recipe: Recipe) -> StoredFactors:
    """Look up a checkpoint's factors.

    Raises:
        MismatchError: there are none, or some were computed from other weights, another tokenizer, recipe or projection.
        TableError: a shard is spread over several files, which only another program does.
    """
    columns = ["shard", "shard_hash", "recipe_hash", "weights_hash", "tokenizer_hash", "projection", "factor_codec"]
    columns += ["bases", "fisher"]
    rows = file_constants(lake, GRADIENT_FACTORS, columns, checkpoint=record.name).sort("shard")
    if rows.is_empty():
        raise MismatchError(
            f"the checkpoint {record.name!r} has no gradient factors; materialize `gradient_factors` for its shards first"
        )
    expected = {
        "recipe_hash": recipe.factor_hash,
        "weights_hash": record.weights_hash,
        "tokenizer_hash": record.tokenizer_hash,
        "bases": record.bases_fingerprint,
    }
    for column, value in expected.items():
        odd = rows.filter(pl.col(column) != value)
        if not odd.is_empty():
            raise MismatchError(
                f"the gradient factors of {record.name!r} in {odd.height} shard(s), for instance {odd['shard'][0]!r}, have "
                f"{column} {odd[column][0]}, but settings and checkpoint have {value}; materialize `gradient_factors` for "
                "these shards again"
            )
    if rows["projection"].n_unique() > 1:
        raise MismatchError(
            f"the gradient factors of {record.name!r} come from two projections, {' and '.join(rows['projection'].unique())}; "
            "materialize `gradient_factors` for its shards again"
        )
    files = lake.factor_files(record.name)
    repeated = [shard for shard, count in Counter(file.shard for file in files).items() if count > 1]
    if repeated:
        raise TableError(
            f"the gradient factors of {record.name!r}, shard {repeated[0]!r}, lie in several files: another program rewrote "
            "the table. Materialize `gradient_factors` for this shard again"
        )
    return StoredFactors(
        lake=lake,
        checkpoint=record.name,
        weights_hash=record.weights_hash,
        files=tuple(files),
        shard_hashes=dict(zip(rows["shard"], rows["shard_hash"], strict=True)),
        layer_shapes=record.layer_shapes,
        numbers=record.decoded_numbers(recipe),
        codec=rows["factor_codec"][0],
        projection=rows["projection"][0],
        bases_fingerprint=record.bases_fingerprint,
        fisher=dict(zip(rows["shard"], rows["fisher"], strict=True)),
    )


def _gathered(
    batches: Iterator[tuple[FactorFile, pa.RecordBatch]], rows: int
) -> Iterator[list[tuple[FactorFile, pa.RecordBatch]]]:
    """Yield groups of consecutive batches that have at most `rows` rows together."""
    pieces: list[tuple[FactorFile, pa.RecordBatch]] = []
    n = 0
    for file, batch in batches:
        if pieces and n + len(batch) > rows:
            yield pieces
            pieces, n = [], 0
        pieces.append((file, batch))
        n += len(batch)
    if pieces:
        yield pieces


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Return the rows of batches of the same binary columns, which another program may have written with shorter offsets."""
    schema = pa.schema([pa.field(name, pa.large_binary()) for name in batches[0].schema.names])
    return pa.concat_batches([batch.cast(schema) for batch in batches])


def _value_bytes(
    batch: pa.RecordBatch, layer: str, pieces: Sequence[tuple[FactorFile, pa.RecordBatch]]
) -> "torch.Tensor":
    """Return a binary column of the rows of some files, joined from these pieces, as [n, bytes], without a copy.

    Raises:
        TableError: a value is missing, or values differ in length.
    """
    import torch

    column = batch.column(layer)
    is_large = pa.types.is_large_binary(column.type)
    n = len(column)
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64 if is_large else np.int32)
    offsets = offsets[column.offset : column.offset + n + 1]
    width = int(offsets[1] - offsets[0])
    if column.null_count or (np.diff(offsets) != width).any():
        file = next(f for f, piece in pieces if set(pc.binary_length(piece.column(layer)).to_pylist()) != {width})
        raise TableError(
            f"the gradient factors in {file.path} (shard {file.shard!r}) have no or uneven values for the layer {layer!r}; "
            "materialize `gradient_factors` for this shard again"
        )
    values = np.frombuffer(column.buffers()[2], dtype=np.uint8, count=n * width, offset=int(offsets[0]))
    return torch.from_numpy(values.reshape(n, width))


def _on_device(data: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """Return data on a device; a GPU fetches it from pinned memory while the next block is read."""
    if device.type == "cuda":
        data = data.pin_memory()
    return data.to(device, non_blocking=True)
