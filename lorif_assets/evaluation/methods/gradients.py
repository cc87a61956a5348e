"""Methods on dense projected gradients, at LoRIF's own projections, in one pass: similarity and a TRAK-style score."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lorif_assets.data.tokens.tokenization import TokenizedExample, n_tokens
from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch


_BF16_BYTES, _FP32_BYTES = 2, 4
_TRAK_FEATURES = 1_024


def gradient_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by gradient dot product and cosine, and by a TRAK-style single-checkpoint score."""
    import torch

    from lorif_assets.mathematics.evaluation.dense_influence import dot_products, squared_norms, trak_scores
    from lorif_assets.mathematics.influcoder.count_sketch import CountSketch

    widths = {layer: d1 * d2 for layer, (d1, d2) in inputs.attributed.record.layer_shapes.items()}
    examples, queries = inputs.examples.tokenized, inputs.queries.tokenized
    started = time.monotonic()
    found = list(_batches(inputs, queries, "gradients of queries"))
    order = torch.tensor([position for positions, _, _ in found for position in positions]).argsort()
    query_gradients = {layer: torch.cat([gradients[layer] for _, gradients, _ in found])[order] for layer in widths}
    query_seconds = time.monotonic() - started

    sketch = CountSketch.draw(widths, min(_TRAK_FEATURES, len(examples) // 2 or 1), inputs.settings.evaluation.seed)
    dots = torch.empty(len(queries), len(examples))
    norms, losses = torch.empty(len(examples)), torch.empty(len(examples))
    features = torch.empty(len(examples), sketch.dim)
    started = time.monotonic()
    for positions, gradients, batch_losses in _batches(inputs, examples, "dense gradients"):
        dots[:, positions] = dot_products(query_gradients, gradients).float().cpu()
        norms[positions], losses[positions] = squared_norms(gradients).sqrt().float().cpu(), batch_losses.float()
        features[positions] = sketch.apply(gradients).float().cpu()
    pass_seconds = time.monotonic() - started

    targets = torch.tensor([example.n_targets for example in examples])
    started = time.monotonic()
    trak = trak_scores(sketch.apply(query_gradients).float().cpu(), features, losses / targets)
    trak_seconds = time.monotonic() - started
    query_norms = squared_norms(query_gradients).sqrt().cpu()
    cosines = dots / (query_norms[:, None] * norms).clamp(min=torch.finfo(torch.float32).tiny)
    stored = float(sum(widths.values()) * _BF16_BYTES)
    return {
        "gradient_dot": MethodScores(dots.numpy(), stored, pass_seconds, query_seconds),
        "gradient_cosine": MethodScores(cosines.numpy(), stored, pass_seconds, query_seconds),
        "trak": MethodScores(
            trak.numpy(),
            sketch.dim * _BF16_BYTES,
            pass_seconds,
            query_seconds + trak_seconds,
            sketch.dim * sketch.dim * _FP32_BYTES,
        ),
    }


def _batches(
    inputs: MethodInputs, examples: "Sequence[TokenizedExample]", label: str
) -> "Iterator[tuple[list[int], dict[str, torch.Tensor], torch.Tensor]]":
    """Yield positions, gradients [n, D] by layer, and losses, batch by batch."""
    with Progress(label, n_tokens(examples), "tok") as progress:
        for positions, batch in inputs.attributed.gradients(examples, inputs.settings.batch.tokens):
            yield positions, {layer: g.flatten(1) for layer, g in batch.gradients.items()}, batch.losses.float().cpu()
            progress.advance(n_tokens(examples[i] for i in positions))
