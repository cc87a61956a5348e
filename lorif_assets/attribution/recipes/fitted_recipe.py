"""What a recipe that leaves widths or bytes to the model comes to: numbers that follow from its layers' shapes alone.

Projections come before anything is computed, so their widths are known from the shapes and the bytes, without data; the
ranks, layer by layer, then follow from the sample that gives the bases (docs/method.md: widths and bytes by themselves).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lorif_assets.config.presets import AUTO
from lorif_assets.config.recipe import Recipe

if TYPE_CHECKING:
    from lorif_assets.mathematics.gradients.layers import TrackedLayer
    from lorif_assets.mathematics.gradients.projection import Projection

SMALL_MODEL = 1 << 21
"""Numbers of a small model's tracked layers, at most: its LM head is tracked, and its width measured."""
LARGEST_RANK = 128
"""Components that a layer keeps for a budget of bytes, at most."""
NARROWEST_WIDTH = 64
"""A projected side below this costs more than any rank gives back."""
_LEAST_COMPONENTS = {NARROWEST_WIDTH: 1, 128: 2, 256: 8, 512: 8}
"""Widths, and the components of every layer that the bytes of an example must pay for at each."""
WIDTHS = tuple(_LEAST_COMPONENTS)
_MOST_COMPONENTS = 16
"""Components of every layer that bytes are spent on by themselves: twice as many raise LDS from 0.64 to 0.66."""
_MOST_NUMBERS = 1 << 22
"""Of an example's projected gradients, across all layers: each shard stores as many, and each query takes as many."""
_MOST_FACTORS = (4, 8)
"""What a side is divided by at most: of a vocabulary's, 4,096 numbers wide, 128 would say little. The second where the
gradients would have more than `_MOST_NUMBERS` with the first."""
_SHARE_OF_PARAMETERS = 1 / 1_000
_BF16_BYTES = 2
_LEAST_BYTES = 1_600


def fitted_recipe(recipe: Recipe, layers: "Sequence[TrackedLayer]") -> Recipe:
    """Return a recipe with numbers in place of what it leaves to the model; one that leaves nothing to it, as it is.

    Args:
        recipe: as it is set.
        layers: that it tracks.
    """
    if not recipe.is_left_to_the_model:
        return recipe
    wanted = recipe.bytes_per_example
    budget = _budget(layers) if wanted is None or wanted == AUTO else wanted
    if recipe.max_width == AUTO:
        recipe = with_width(recipe, _width(recipe, layers, budget), layers)
    if wanted != AUTO:
        return recipe
    one = component_bytes(recipe, layers)
    most = min(_full_bytes(recipe, layers), max(_MOST_COMPONENTS * one, _LEAST_BYTES))
    return recipe.changed(bytes_per_example=max(one, min(budget, most)))


def with_width(recipe: Recipe, width: int, layers: "Sequence[TrackedLayer]") -> Recipe:
    """Return a recipe with a largest width in place of the one that it leaves to the model."""
    if recipe.max_factor is not None:
        return recipe.changed(max_width=width)
    wider, narrower = (recipe.changed(max_width=width, max_factor=factor) for factor in _MOST_FACTORS)
    return wider if _numbers(wider.projection, layers) <= _MOST_NUMBERS else narrower


def below_full(shape: tuple[int, int]) -> int:
    """Return the largest rank that the model is given by itself: the last component costs as much as it says little."""
    return max(1, min(shape) - 1)


def component_bytes(recipe: Recipe, layers: "Iterable[TrackedLayer]") -> int:
    """Return the bytes of one component of every layer under a recipe that leaves no width to the model."""
    from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

    codec, projection = FactorCodec(recipe.factor_dtype), recipe.projection
    return sum(factor_bytes(codec, *projection.shape(layer), 1) for layer in layers)


def level_rank(recipe: Recipe, layers: "Iterable[TrackedLayer]") -> int:
    """Return the rank that every layer has, or could have if the bytes were spread evenly, as far as widths let it."""
    budget = recipe.byte_budget
    return recipe.rank if budget is None else max(1, budget // component_bytes(recipe, layers))


def _budget(layers: "Iterable[TrackedLayer]") -> int:
    tracked = sum(layer.d_in * layer.d_out for layer in layers)
    return max(round(_SHARE_OF_PARAMETERS * _BF16_BYTES * tracked), _LEAST_BYTES)


def _full_bytes(recipe: Recipe, layers: "Iterable[TrackedLayer]") -> int:
    from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

    codec, shapes = FactorCodec(recipe.factor_dtype), map(recipe.projection.shape, layers)
    return sum(factor_bytes(codec, *shape, min(LARGEST_RANK, below_full(shape))) for shape in shapes)


def _width(recipe: Recipe, layers: "Sequence[TrackedLayer]", budget: int) -> int:
    """Return the largest width at which the bytes pay for some components of every layer, and that memory can hold."""
    earlier = recipe.changed(max_width=None, projection_factor=_MOST_FACTORS[-1]).projection
    most = max(_MOST_NUMBERS, _numbers(earlier, layers))

    def is_within(width: int) -> bool:
        narrowed = with_width(recipe, width, layers)
        pays = _LEAST_COMPONENTS[width] * component_bytes(narrowed, layers) <= budget
        return pays and _numbers(narrowed.projection, layers) <= most

    return max(filter(is_within, WIDTHS), default=NARROWEST_WIDTH)


def _numbers(projection: "Projection", layers: "Iterable[TrackedLayer]") -> int:
    return sum(d1 * d2 for d1, d2 in map(projection.shape, layers))
