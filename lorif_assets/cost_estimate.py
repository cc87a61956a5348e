"""What attribution of one checkpoint will cost, before it starts: bytes, passes and memory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorif_assets.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CostEstimate:
    """Sizes in bytes, for a given number of training examples."""

    n_layers: int
    gradient_numbers: int
    """Sum over layers of D = d1 d2: the numbers of one example's projected gradient."""
    bytes_per_example: int
    factor_bytes: int
    """Of all examples, in the table `gradient_factors`."""
    curvature_bytes: int
    """Of all layers' states, as files in the lake."""
    largest_state_bytes: int
    """Of the largest layer's state in FP64, which fitting holds in memory about three times."""
    bytes_per_query: int
    """Of one dense preconditioned query in memory."""
    factor_passes: int
    """How often fitting reads the factors; scoring reads them once more."""


def estimate(model: "nn.Module", recipe: Recipe, n_examples: int) -> CostEstimate:
    """Return the cost of one checkpoint.

    Args:
        model: the model; one without memory for its weights is enough.
        recipe: layers, projection, ranks.
        n_examples: training examples of all shards.

    Raises:
        LayerError: a layer pattern matches nothing, or a layer cannot be tracked.
    """
    from lorif_assets.attribution.factor_codec import FactorCodec, factor_bytes
    from lorif_assets.attribution.layers import select_layers
    from lorif_assets.attribution.projection import projected_width

    factor = recipe.projection_factor
    shapes = [
        (projected_width(layer.d_in, factor), projected_width(layer.d_out, factor))
        for layer in select_layers(model, recipe.include_layers, recipe.exclude_layers)
    ]
    per_example = sum(factor_bytes(FactorCodec(recipe.factor_dtype), d1, d2, recipe.rank) for d1, d2 in shapes)
    # Basis, image and vectors: D x (2 k + r) numbers.
    states = [d1 * d2 * (2 * min(recipe.basis_width, d1 * d2) + min(recipe.r, d1 * d2)) * 4 for d1, d2 in shapes]
    return CostEstimate(
        n_layers=len(shapes),
        gradient_numbers=sum(d1 * d2 for d1, d2 in shapes),
        bytes_per_example=per_example,
        factor_bytes=per_example * n_examples,
        curvature_bytes=sum(states),
        largest_state_bytes=max(d1 * d2 * min(recipe.basis_width, d1 * d2) * 8 for d1, d2 in shapes),
        bytes_per_query=sum(d1 * d2 for d1, d2 in shapes) * 4,
        factor_passes=1 + recipe.refinements,
    )
