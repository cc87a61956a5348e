"""What a recipe chosen by hand wastes on one model: bytes that would buy more at other widths, ranks or formats."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lorif_assets.attribution.recipes.fitted_recipe import LARGEST_RANK, NARROWEST_WIDTH, level_rank
from lorif_assets.config.recipe import Recipe

if TYPE_CHECKING:
    from lorif_assets.mathematics.gradients.layers import TrackedLayer

_REMEDY = "leave `projection_factor`, `max_width` and `rank` out of the recipe, and widths and ranks fit the model"
_BITS = {"bf16": 16, "fp32": 32}


def wasted_bytes(recipe: Recipe, layers: "Sequence[TrackedLayer]") -> list[str]:
    """Return in words what a recipe wastes, each with what to do; nothing where it spends its bytes well.

    Args:
        recipe: one that leaves nothing to the model.
        layers: that it tracks.
    """
    return [f"{finding}: {_REMEDY}" for finding in (*_narrow(recipe, layers), *_full(recipe, layers))] + [
        *_unspent(recipe, layers),
        *_wide_format(recipe),
    ]


def _narrow(recipe: Recipe, layers: "Sequence[TrackedLayer]") -> Iterator[str]:
    projection = recipe.projection
    sides = sorted({(side, projection.width(side)) for layer in layers for side in (layer.d_in, layer.d_out)})
    narrow = [(side, width) for side, width in sides if width < min(side, NARROWEST_WIDTH)]
    if narrow:
        side, width = narrow[0]
        yield (
            f"at {projection} sides are projected to fewer than {NARROWEST_WIDTH} numbers ({side:,} to {width:,}), which costs "
            "more than any rank gives back"
        )


def _full(recipe: Recipe, layers: "Sequence[TrackedLayer]") -> Iterator[str]:
    projection, rank = recipe.projection, level_rank(recipe, layers)
    full = [
        layer
        for layer in layers
        if min(projection.shape(layer)) < min(layer.d_in, layer.d_out) and rank >= min(projection.shape(layer))
    ]
    if full:
        d1, d2 = projection.shape(full[0])
        yield (
            f"{len(full)} of {len(layers)} layers are projected and then kept at their full rank ({min(d1, d2)} of {d1} x {d2} "
            "numbers in the first), where wider ones would say more for the same bytes"
        )


def _unspent(recipe: Recipe, layers: "Sequence[TrackedLayer]") -> Iterator[str]:
    from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

    codec, projection = FactorCodec(recipe.factor_dtype), recipe.projection
    most = sum(factor_bytes(codec, *projection.shape(layer), LARGEST_RANK) for layer in layers)
    if (budget := recipe.byte_budget) is not None and budget > most:
        yield f"of {budget:,} bytes per example at most {most:,} can be spent: lower `bytes_per_example`, or track more layers"


def _wide_format(recipe: Recipe) -> Iterator[str]:
    bits = _BITS.get(recipe.factor_dtype)
    if bits and recipe.whitens:
        yield (
            f'`factor_dtype = "{recipe.factor_dtype}"` takes {bits} bits for each number of whitened factors: "sign" keeps '
            f"about {bits} times the components for the same bytes, and predicts retraining better"
        )
