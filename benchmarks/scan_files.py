"""Files of random gradient factors that a scan reads: a Delta table as the project writes it, or plain files."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lorif_assets.attribution.recipes.block_rows import MOST_ROWS, block_rows, scanned_numbers
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.mathematics.factors.codec import FactorCodec, encode, scored_form
from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.factors.packed_signs import LayerFactors


class FactorFiles(ABC):
    """Shards of factors of a checkpoint, all of one size."""

    paths: list[Path]
    n_examples: int

    @abstractmethod
    def __init__(self, folder: Path, record: CheckpointRecord, recipe: Recipe, shards: int, examples: int) -> None:
        """Write them."""

    @abstractmethod
    def columns(self, rows: int | None) -> Iterator[object]:
        """Read the codes of all layers, so many rows at a time."""

    @abstractmethod
    def blocks(self, rows: int | None, device: torch.device) -> Iterator[dict[str, LayerFactors]]:
        """Yield the layers' factors in the form that is scored on a device."""


class LakeFiles(FactorFiles):
    """The table that `gradient_factors` writes."""

    def __init__(self, folder: Path, record: CheckpointRecord, recipe: Recipe, shards: int, examples: int) -> None:
        from copied_shards import random_rows, shard_name

        from lorif_assets.attribution.stored.factors import stored_factors
        from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
        from lorif_assets.lake.lake import Lake

        self._lake, self._layers = Lake(root=str(folder)), list(record.layer_shapes)
        for shard in map(shard_name, range(shards)):
            rows = random_rows(record, recipe, shard, examples // shards)
            self._lake.replace(GRADIENT_FACTORS, {"checkpoint": record.name, "shard": shard}, rows)
        self._stored = stored_factors(self._lake, record, recipe)
        self.paths = [Path(self._lake.uri(GRADIENT_FACTORS), file.path) for file in self._stored.files]
        self.n_examples = self._stored.n_examples

    def columns(self, rows: int | None) -> Iterator[object]:
        return self._lake.stream_factors(self._stored.files, self._layers, rows or MOST_ROWS)

    def blocks(self, rows: int | None, device: torch.device) -> Iterator[dict[str, LayerFactors]]:
        return self._stored.scan_blocks(self._layers, rows, device)


class PlainFiles(FactorFiles):
    """A file for each shard and layer, of nothing but codes."""

    def __init__(self, folder: Path, record: CheckpointRecord, recipe: Recipe, shards: int, examples: int) -> None:
        self._shapes, self._codec = record.layer_shapes, FactorCodec(recipe.factor_dtype)
        self._numbers = record.decoded_numbers(recipe)
        self._rows = examples // shards
        self.n_examples, self.paths = self._rows * shards, []
        generator, self._shards = torch.Generator().manual_seed(0), [dict[str, Tensor]() for _ in range(shards)]
        for number, shard in enumerate(self._shards):
            for at, (layer, (d1, d2)) in enumerate(self._shapes.items()):
                u, v = (torch.randn(self._rows, d, recipe.rank, generator=generator) for d in (d1, d2))
                codes, path = encode(GradientFactors(u, v), self._codec), folder / f"{number}-{at}.codes"
                path.write_bytes(codes.numpy().tobytes())
                mapped = torch.from_file(str(path), shared=False, size=codes.numel(), dtype=torch.uint8)
                shard[layer] = mapped.view(codes.shape)
                self.paths.append(path)

    def columns(self, rows: int | None) -> Iterator[object]:
        for block in self._stored(rows or MOST_ROWS):
            yield [codes.clone() for codes in block.values()]

    def blocks(self, rows: int | None, device: torch.device) -> Iterator[dict[str, LayerFactors]]:
        fitting = rows or block_rows(scanned_numbers(self._numbers, self._codec.value, device), device)
        for block in self._stored(fitting):
            on_device = {
                layer: (codes.pin_memory() if device.type == "cuda" else codes).to(device, non_blocking=True)
                for layer, codes in block.items()
            }
            yield {layer: scored_form(codes, self._codec, *self._shapes[layer]) for layer, codes in on_device.items()}

    def _stored(self, rows: int) -> Iterator[dict[str, Tensor]]:
        for shard in self._shards:
            for first in range(0, self._rows, rows):
                yield {layer: codes[first : first + rows] for layer, codes in shard.items()}
