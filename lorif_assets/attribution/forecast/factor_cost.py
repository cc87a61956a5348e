"""What the factors of a batch ask of a device beside the model's own two passes, counted without a device or weights."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.factor_rows import run_batch
from lorif_assets.attribution.recipes.fitted_recipe import fitted_recipe, level_rank
from lorif_assets.attribution.recipes.recipe_on_model import tracked_layers
from lorif_assets.attribution.stored.bases import FrozenBases
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings
from lorif_assets.models.devices import DeviceGroup

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
    from lorif_assets.mathematics.gradients.collector import TokenBatch
    from lorif_assets.mathematics.gradients.layers import TrackedLayer
    from lorif_assets.mathematics.gradients.projection import LayerProjection
    from lorif_assets.mathematics.operation_counts import DeviceRates, OperationCost


@dataclass(frozen=True)
class FactorCost:
    """The cost of one batch: of the bare model's forward and activation-gradient backward pass, and with its factors."""

    floor: "OperationCost"
    whole: "OperationCost"

    def share_of_floor(self, rates: "DeviceRates") -> float:
        """Return the rate of the factors as a share of that of the bare passes on a device."""
        return self.floor.seconds(rates) / self.whole.seconds(rates)


def factor_cost(
    model: "PreTrainedModel", recipe: Recipe, examples: int, tokens: int, batch: BatchSettings | None = None
) -> FactorCost:
    """Count one batch on an accelerator, with every layer at the recipe's rank, or at one that its bytes allow.

    Attention is counted as two products.

    Args:
        model: its weights may be on the meta device; their types count, their numbers do not.
        recipe: layers, projection, ranks, whitening.
        examples: of the batch.
        tokens: of each example.
        batch: budgets; by default those of the settings.
    """
    import torch

    from lorif_assets.mathematics.gradients.collector import GradientCollector
    from lorif_assets.mathematics.operation_counts import OperationCounts

    shapes_only = _without_numbers(model)
    layers = tracked_layers(shapes_only, recipe)
    recipe, inputs = fitted_recipe(recipe, layers), _full_batch(examples, tokens)
    # The collector without layers is the floor: frozen weights, gradients of activations alone.
    with OperationCounts() as bare, GradientCollector(shapes_only, []) as collector:
        collector.collect(inputs)
    shapes = {layer.name: recipe.projection.shape(layer) for layer in layers}
    rank = level_rank(recipe, layers)
    ranks = {layer: min(rank, *shape) for layer, shape in shapes.items()}
    record = CheckpointRecord("", "", "", "", 0, None, shapes, FrozenBases("", ranks, {}, recipe.whitening_damping))
    projections = [_meta_projection(layer, recipe) for layer in layers]
    device = torch.device("meta")
    attributed = AttributedModel(record, recipe, shapes_only, None, projections, "", DeviceGroup((device,)))
    bases = {layer: _meta_bases(shape, recipe) for layer, shape in shapes.items()} if recipe.whitens else {}
    batch = batch or BatchSettings()
    # What the settings leave to an accelerator holds the gradients of a whole batch.
    numbers = batch.gradient_numbers if batch.gradient_mib else sys.maxsize
    # Once to make what later batches find on the device, and once to count.
    run_batch(attributed, inputs, bases, numbers)
    with OperationCounts() as counts:
        run_batch(attributed, inputs, bases, numbers)
    return FactorCost(bare.cost, counts.cost)


def _without_numbers(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return a model of the same form on the meta device, whose attention looks at no numbers."""
    import copy

    import torch

    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        made: PreTrainedModel = type(model)(config)
    return made.to(model.dtype)


def _full_batch(examples: int, tokens: int) -> "TokenBatch":
    import torch

    from lorif_assets.mathematics.gradients.collector import TokenBatch

    ids = torch.zeros(examples, tokens, dtype=torch.int64, device="meta")
    return TokenBatch(ids, ids.bool(), ids, is_padded_right=True)


def _meta_projection(layer: "TrackedLayer", recipe: Recipe) -> "LayerProjection":
    import torch

    from lorif_assets.mathematics.gradients.projection import LayerProjection

    projection = recipe.projection

    def side(width: int) -> "torch.Tensor | None":
        kept = projection.width(width)
        return None if projection.is_identity(width) else torch.empty(width, kept, device="meta")

    return LayerProjection(layer, *projection.shape(layer), side(layer.d_in), side(layer.d_out))


def _meta_bases(shape: tuple[int, int], recipe: Recipe) -> "KfacBases":
    import torch

    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases

    d1, d2 = shape
    sizes: Mapping[str, tuple[int, ...]] = {"q_in": (d1, d1), "q_out": (d2, d2), "a": (d1,), "b": (d2,)}
    tensors = {name: torch.empty(size, device="meta") for name, size in sizes.items()}
    return KfacBases.from_tensors(tensors, recipe.whitening_damping, torch.device("meta"), recipe.whitening_rank)
