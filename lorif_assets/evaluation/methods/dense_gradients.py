"""Dense gradients of some layers in memory, for methods that look at all examples' gradients of a layer together."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.recipes.gradient_room import layer_groups
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import SettingsError
from lorif_assets.mathematics.gradients.collector import GradientCollector
from lorif_assets.models.free_memory import host_memory

_LARGEST_GROUP = 2 << 30


def refuse_large_layers(attributed: AttributedModel, n_examples: int, copies: float, remedy: str) -> None:
    """Refuse to hold dense gradients for which there is no memory: a system ends without a word what asks for more.

    Args:
        attributed: the checkpoint.
        n_examples: whose gradients are held.
        copies: of a layer's gradients that are in memory at a time, those on the way from one form to the next among them.
        remedy: what to do instead.

    Raises:
        SettingsError: with the remedy.
    """
    shapes = attributed.record.layer_shapes
    largest = max(shapes, key=lambda layer: shapes[layer][0] * shapes[layer][1])
    needed, free = 4 * n_examples * shapes[largest][0] * shapes[largest][1] * copies, host_memory()
    if needed > free:
        raise SettingsError(
            f"the dense gradients of {n_examples:,} examples in the layer {largest!r} take {needed / 2**30:.1f} GiB while they "
            f"are scored, and {free / 2**30:.1f} are free; {remedy}"
        )


def dense_groups(shapes: Mapping[str, tuple[int, int]], n: int) -> Iterator[list[str]]:
    """Yield groups of layers whose dense gradients of n examples fit in 2 GiB together; a larger layer is one by itself."""
    return layer_groups({layer: 4 * n * d1 * d2 for layer, (d1, d2) in shapes.items()}, _LARGEST_GROUP)


def dense_gradients(
    attributed: AttributedModel,
    layers: Sequence[str],
    examples: Sequence[TokenizedExample],
    batch: BatchSettings,
    kept_as: Callable[[str, Float[Tensor, "m d1 d2"]], Float[Tensor, "m d1 d2"]] = lambda _layer, gradients: gradients,
) -> dict[str, Float[Tensor, "n d1 d2"]]:
    """Return the projected gradients of some layers, by layer, in the order of the examples, in FP32 on the CPU.

    Args:
        attributed: the checkpoint.
        layers: of it.
        examples: n, whose gradients are returned.
        batch: the size of a pass.
        kept_as: what is kept of the gradients of m examples in a layer, so that those of all are never held in two forms.
    """
    shapes = attributed.record.layer_shapes
    gradients = {layer: torch.empty(len(examples), *shapes[layer]) for layer in layers}
    chosen = [projection for projection in attributed.projections if projection.layer.name in gradients]
    with GradientCollector(attributed.model, chosen) as collector:
        for positions in attributed.batches(examples, batch.tokens):
            for layer, found in collector.collect(attributed.batch(examples, positions)).gradients.items():
                gradients[layer][positions] = kept_as(layer, found.float()).cpu()
    return gradients
