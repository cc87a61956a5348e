"""What attributing one checkpoint will cost, known before it starts: bytes, passes and memory."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorif_assets.attribution.fitting.whole_gradients import inverse_bytes
from lorif_assets.attribution.recipes.fitted_recipe import LARGEST_RANK, fitted_recipe, level_rank
from lorif_assets.attribution.recipes.recipe_on_model import tracked_layers
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.config.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class CostEstimate:
    """Sizes in bytes, for a given number of training examples."""

    n_layers: int
    gradient_numbers: int
    """Sum over layers of D = d1 d2: the numbers of one example's projected gradient."""
    bytes_per_example: int
    decoded_numbers: int
    """Of one example's factors, once they are decoded, with bytes spread evenly: the size of a scan's blocks follows."""
    factor_bytes: int
    """Of all examples, in the table `gradient_factors`."""
    curvature_bytes: int
    """Of all layers' states, as files in the lake."""
    largest_state_bytes: int
    """Of the largest layer's state in FP64; fitting needs about three times as much memory."""
    bytes_per_query: int
    """Of one dense preconditioned query in memory."""
    factor_passes: int
    """How many times fitting reads the factors; scoring reads them once more."""
    fisher_bytes: int
    """Of the sums of squared gradients that are stored beside each shard's factors; 0 without whitening."""
    whole_inverse_bytes: int
    """Of EK-FAC's inverse of whole gradients in memory, which `exact_scores` takes."""
    n_shards: int
    n_parameters: int
    """Of the model."""
    whitens: bool
    """Whether gradients are whitened, which takes bases, and sums for each shard and layer."""

    @property
    def objects(self) -> int:
        """Files that the lake gets: one for each shard's factors and each layer's state, with whitening also its bases.

        The sums are one more for each shard and layer.
        """
        whitening = self.n_layers * (1 + self.n_shards) if self.whitens else 0
        return self.n_shards + self.n_layers + whitening

    @property
    def commits(self) -> int:
        """Commits to Delta tables: one for each shard and each layer, with whitening one more for all bases."""
        return self.n_shards + self.n_layers + int(self.whitens)

    def operations(self, tokens: int) -> int:
        """Return the operations of the model's two passes over tokens: 2 per parameter and token, forward and backward.

        Attention, which grows with the length of examples, and the factors themselves are not counted.
        """
        return 4 * self.n_parameters * tokens


def estimate(model: "nn.Module", recipe: Recipe, n_examples: int, n_shards: int) -> CostEstimate:
    """Return the cost of one checkpoint.

    Args:
        model: the model; its weights may be on the meta device.
        recipe: layers, projection, ranks.
        n_examples: training examples of all shards.
        n_shards: shards.

    Raises:
        LayerError: a layer pattern matches nothing, or a layer cannot be tracked.
    """
    from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

    tracked = tracked_layers(model, recipe)
    recipe = fitted_recipe(recipe, tracked)
    codec, shapes = FactorCodec(recipe.factor_dtype), [recipe.projection.shape(layer) for layer in tracked]
    dense = [d1 * d2 for d1, d2 in shapes]
    budget, rank = recipe.byte_budget, level_rank(recipe, tracked)
    per_example = sum(factor_bytes(codec, d1, d2, LARGEST_RANK if budget else rank) for d1, d2 in shapes)
    if budget:
        # Spent down to the last component that fits, or to the layers' full ranks.
        per_example = min(budget, per_example)
    curvature = curvature_of(recipe).cost(shapes)
    return CostEstimate(
        n_layers=len(shapes),
        gradient_numbers=sum(dense),
        bytes_per_example=per_example,
        decoded_numbers=sum(min(rank, d1, d2) * (d1 + d2) for d1, d2 in shapes),
        factor_bytes=per_example * n_examples,
        curvature_bytes=curvature.stored_bytes,
        largest_state_bytes=curvature.largest_state_bytes,
        bytes_per_query=sum(dense) * 4,
        factor_passes=curvature.factor_passes,
        fisher_bytes=n_shards * curvature.bytes_per_shard,
        whole_inverse_bytes=inverse_bytes([(layer.d_in, layer.d_out) for layer in tracked]),
        n_shards=n_shards,
        n_parameters=sum(parameter.numel() for parameter in model.parameters()),
        whitens=recipe.whitens,
    )


def stored_bytes_per_example(record: CheckpointRecord, recipe: Recipe) -> int:
    """Return the bytes of one stored example's factors in all layers, at the ranks that the layers have."""
    from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

    codec, ranks = FactorCodec(recipe.factor_dtype), record.frozen_bases.ranks if record.frozen_bases else {}
    return sum(
        factor_bytes(codec, *shape, ranks.get(layer, recipe.rank)) for layer, shape in record.layer_shapes.items()
    )
