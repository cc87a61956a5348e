"""This project, under the same driver as its peers: a shard of gradient factors in a lake, and a scan of it."""

import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer_workload import Peer, Workload, run

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.factor_rows import factor_rows
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.factors import stored_factors
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_writing import with_constants
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import fingerprint, layer_projection
from lorif_assets.mathematics.scores.scoring import ScoreExtremes, block_scores
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.progress import Progress

LOG = logging.getLogger("benchmark")
SHARD = "source-00000"
RECIPES: dict[str, dict[str, Any]] = {
    "lorif": {"rank": 1, "factor_dtype": "bf16"},
    "lorif-sign": {"rank": 8, "factor_dtype": "sign"},
    "lorif-int8": {"rank": 16, "factor_dtype": "int8"},
}
"""Of each name under which `peers.py` runs this program, how factors are kept."""


class Lorif(Peer):
    """Stage 1 of the pipeline and stage 3 without a preconditioner, as of the peers."""

    distribution = "lorif-assets"

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        options, tokens = RECIPES[sys.argv[2]], workload.batch_rows * workload.examples.shape[1]
        self._batch = BatchSettings(tokens=tokens)
        self._attributed = attributed_model(
            workload, Recipe(curvature="svd", projection_factor=workload.projection_factor, **options)
        )
        self.setting = (
            f"projection_factor {workload.projection_factor}, {options['factor_dtype']}, c = {options['rank']}, "
            f"batches of {tokens} tokens"
        )

    def build(self, examples: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", folder: Path) -> None:
        folder.mkdir(parents=True)
        self._lake, record, recipe = Lake(root=str(folder)), self._attributed.record, self._attributed.recipe
        with Progress("factors", examples.size, "tok", LOG) as progress:
            factors = factor_rows(self._attributed, tokenized(examples), {}, self._batch, progress)
        constants = {
            "checkpoint": record.name,
            "shard": SHARD,
            "recipe_hash": recipe.factor_hash,
            "weights_hash": record.weights_hash,
            "tokenizer_hash": record.tokenizer_hash,
            "projection": self._attributed.projection,
            "shard_hash": "s" * 32,
            "factor_codec": recipe.factor_dtype,
            "bases": "",
            "fisher": "",
        }
        rows = with_constants(factors.rows, constants)
        self._lake.replace(GRADIENT_FACTORS, {"checkpoint": record.name, "shard": SHARD}, rows)
        self._stored = stored_factors(self._lake, record, recipe)

    def scores(self) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
        queries = self.workload.queries
        dense = dense_gradients(self._attributed, queries, self._batch.tokens)
        extremes, every, count = ScoreExtremes.empty(len(queries), 100), [], 0
        for block in self._stored.scan_blocks(list(dense), self._batch.scan_rows, self._attributed.device):
            scores = block_scores({**dense}, block)
            extremes = extremes.update(scores, count)
            count += scores.shape[1]
            every.append(scores)
        return torch.cat(every, dim=1).numpy()


def attributed_model(workload: Workload, recipe: Recipe) -> AttributedModel:
    """Return the workload's model, whose gradients the recipe tells how to keep."""
    model = workload.model()
    layers = [layer for layer in select_layers(model) if layer.name in workload.layers]
    shapes = {layer.name: recipe.projection.shape(layer) for layer in layers}
    record = CheckpointRecord("random", "w" * 32, "t" * 32, "gpt2", model.num_parameters(), None, shapes)
    projections = [layer_projection(layer, recipe.projection) for layer in layers]
    projection = fingerprint(layers, recipe.projection)
    # No text is tokenized, so that the model needs no tokenizer.
    return AttributedModel(record, recipe, model, None, projections, projection, DeviceGroup.of("cpu"))  # type: ignore[arg-type]


def tokenized(examples: "np.ndarray[tuple[int, int], np.dtype[np.int64]]") -> list[TokenizedExample]:
    """Return rows of token ids as examples."""
    return [TokenizedExample(str(row), row, ids, ids) for row, ids in enumerate(examples)]


def dense_gradients(
    attributed: AttributedModel, examples: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", batch_tokens: int
) -> dict[str, torch.Tensor]:
    """Return per layer the projected gradients [n, D] of examples."""
    shapes = attributed.record.layer_shapes.items()
    dense = {layer: torch.empty(len(examples), d1 * d2) for layer, (d1, d2) in shapes}
    for positions, found in attributed.gradients(tokenized(examples), batch_tokens):
        for layer, gradients in found.gradients.items():
            dense[layer][positions] = gradients.flatten(1)
    return dense


if __name__ == "__main__":
    run(Lorif)
