"""Methods on dense projected gradients, at LoRIF's own projections: similarity, LoGRA and a TRAK-style score."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lorif_assets.errors import SettingsError
from lorif_assets.methods.inputs import MethodInputs, MethodScores
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch

    from lorif_assets.corpus.tokenization import TokenizedExample

LOGRA_DAMPING = 0.1
"""Of LoGRA's mean eigenvalue, as published."""
_BF16_BYTES = 2
_TRAK_FEATURES = 1_024
_MOST_MATRIX_BYTES = 8 << 30


def gradient_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by gradient dot product and cosine, dense LoGRA, and a TRAK-style single-checkpoint score.

    Two passes over the training data: one for curvature, features and similarity, one for LoGRA's scores, which need
    its curvature first.

    Raises:
        SettingsError: LoGRA's D x D matrices would not fit into memory.
    """
    import torch

    from lorif_assets.evaluation.dense_influence import (
        DenseCurvature,
        dot_products,
        squared_norms,
        trak_scores,
    )
    from lorif_assets.influcoder.count_sketch import CountSketch

    widths = {layer: d1 * d2 for layer, (d1, d2) in inputs.attributed.record.layer_shapes.items()}
    _refuse_large(widths)
    examples, queries = inputs.examples.tokenized, inputs.queries.tokenized
    started = time.monotonic()
    by_position = dict(_gradients(inputs, queries))
    query_gradients = {layer: torch.stack([by_position[i][0][layer] for i in range(len(queries))]) for layer in widths}
    query_seconds = time.monotonic() - started

    sketch = CountSketch.draw(widths, min(_TRAK_FEATURES, len(examples) // 2 or 1), inputs.settings.evaluation.seed)
    curvature = DenseCurvature({})
    dots, logra = (torch.empty(len(queries), len(examples)) for _ in range(2))
    norms, losses = torch.empty(len(examples)), torch.empty(len(examples))
    features = torch.empty(len(examples), sketch.dim)
    started = time.monotonic()
    for positions, gradients, batch_losses in _batches(inputs, examples, "dense gradients, pass 1 of 2"):
        curvature.add(gradients)
        dots[:, positions] = dot_products(query_gradients, gradients).cpu()
        norms[positions], losses[positions] = squared_norms(gradients).sqrt().cpu(), batch_losses
        features[positions] = sketch.apply(gradients).cpu()
    pass_seconds = time.monotonic() - started

    started = time.monotonic()
    ready = curvature.preconditioned(query_gradients, LOGRA_DAMPING)
    inverse_seconds = time.monotonic() - started
    for positions, gradients, _ in _batches(inputs, examples, "dense gradients, pass 2 of 2"):
        logra[:, positions] = dot_products(ready, gradients).cpu()

    targets = torch.tensor([example.n_targets for example in examples])
    started = time.monotonic()
    trak = trak_scores(sketch.apply(query_gradients).cpu(), features, losses / targets)
    trak_seconds = time.monotonic() - started
    query_norms = squared_norms(query_gradients).sqrt().cpu()
    cosines = dots / (query_norms[:, None] * norms).clamp(min=torch.finfo(torch.float32).tiny)
    stored = float(sum(widths.values()) * _BF16_BYTES)
    return {
        "gradient_dot": MethodScores(dots.numpy(), stored, pass_seconds, query_seconds),
        "gradient_cosine": MethodScores(cosines.numpy(), stored, pass_seconds, query_seconds),
        "dense_logra": MethodScores(logra.numpy(), stored, pass_seconds, query_seconds + inverse_seconds),
        "trak": MethodScores(trak.numpy(), sketch.dim * _BF16_BYTES, pass_seconds, query_seconds + trak_seconds),
    }


def _refuse_large(widths: dict[str, int]) -> None:
    needed = sum(4 * width**2 for width in widths.values())
    if needed > _MOST_MATRIX_BYTES:
        raise SettingsError(
            f"dense LoGRA needs {needed / 2**30:.0f} GiB for the D x D matrices of {len(widths)} layers, more than "
            f"{_MOST_MATRIX_BYTES / 2**30:.0f}; raise `recipe.projection_factor`, or take gradient_dot, gradient_cosine, "
            "dense_logra and trak out of `evaluation.methods`"
        )


def _gradients(
    inputs: MethodInputs, examples: "Sequence[TokenizedExample]"
) -> "Iterator[tuple[int, tuple[dict[str, torch.Tensor], float]]]":
    """Yield position, gradients [D] by layer and loss, example by example."""
    for positions, batch in inputs.attributed.gradients(examples, inputs.settings.batch.tokens):
        for row, position in enumerate(positions):
            yield (
                position,
                ({layer: g[row].flatten() for layer, g in batch.gradients.items()}, float(batch.losses[row])),
            )


def _batches(
    inputs: MethodInputs, examples: "Sequence[TokenizedExample]", label: str
) -> "Iterator[tuple[list[int], dict[str, torch.Tensor], torch.Tensor]]":
    """Yield positions, gradients [n, D] by layer, and losses, batch by batch."""
    tokens = int(np.sum([len(example.input_ids) for example in examples]))
    with Progress(logging.getLogger(__name__), label, tokens, "tok") as progress:
        for positions, batch in inputs.attributed.gradients(examples, inputs.settings.batch.tokens):
            yield positions, {layer: g.flatten(1) for layer, g in batch.gradients.items()}, batch.losses.float().cpu()
            progress.advance(sum(len(examples[i].input_ids) for i in positions))
