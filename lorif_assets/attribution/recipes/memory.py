"""The memory that attributing a checkpoint takes, known from its configuration alone, before anything is loaded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lorif_assets.attribution.recipes.fitted_recipe import fitted_recipe
from lorif_assets.attribution.recipes.recipe_on_model import tracked_layers
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.sections import BatchSettings

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from lorif_assets.mathematics.gradients.contraction import Contraction
    from lorif_assets.mathematics.gradients.layers import LinearWeight, TrackedLayer
    from lorif_assets.mathematics.gradients.projection import LayerProjection

_FP32, _FP64 = 4, 8
_WIDE_LOGITS = 2
"""In FP32, beside the logits of a chunk in the model's type: what their softmax reads, or the head's own operations keep, and
the softmax, which becomes their gradient."""
_EIGH_COPIES = 6
"""The covariance, its mean, its eigenvectors and LAPACK's workspace, in FP64."""
_SIDE_COPIES = 2
_ROW_COPIES = 3
"""Rows of experts, and their layout by expert and example, which is filled up to about twice as many."""
_LIBRARIES = 1 << 27
"""Compiled products and the allocator's reserve."""
_SLICE_COPIES = 3
"""A slice of gradients, rotated, and transposed in between."""


@dataclass(frozen=True)
class MemoryNeeds:
    """Bytes on the device of a checkpoint's batches, at a number of tokens."""

    tokens: int
    """Of a batch, padding included."""
    longest: int
    """Tokens of the longest example: no batch can be smaller where there is one."""
    weights: int
    projections: int
    passes: int
    """What the passes keep of a batch of `longest` tokens, beside the logits: activations and tracked layers' inputs."""
    expert_rows: int
    """Both sides of what `longest` tokens' experts multiply, laid out; 0 without experts."""
    logits: int
    gradients: int
    bases: int
    """Bases of all layers and sums of squares in them; 0 without whitening."""
    bases_fit: int
    """The covariances of both halves of the sample."""
    eigendecomposition: int
    """Of the largest covariance."""

    @property
    def batch(self) -> int:
        """Of a batch's passes."""
        return (self.passes + self.expert_rows) * self.rows + self.logits + _LIBRARIES

    @property
    def rows(self) -> int:
        """Of a batch whose examples all have the largest length."""
        return max(1, self.tokens // self.longest)

    @property
    def stages(self) -> dict[str, int]:
        """The most that each stage holds at a time."""
        held = self.weights + self.projections
        stages = {"gradient factors": held + self.bases + self.batch + self.gradients}
        if self.bases:
            stages["K-FAC bases"] = held + self.bases_fit + max(self.batch, self.eigendecomposition)
        return stages

    @property
    def largest_stage(self) -> str:
        """The stage that holds the most."""
        return max(self.stages, key=lambda name: self.stages[name])

    @property
    def total(self) -> int:
        """The most that any stage holds at a time."""
        return self.stages[self.largest_stage]

    def at(self, tokens: int) -> "MemoryNeeds":
        """Return the needs of batches of another number of tokens."""
        return replace(self, tokens=tokens)

    def most_tokens(self, memory: int) -> int | None:
        """Return the tokens of the largest batch, of at most as many as now, that fits; None if no example does."""
        fitting = (rows for rows in range(self.rows, 0, -1) if self.at(rows * self.longest).total <= memory)
        rows = next(fitting, None)
        if rows is None:
            return None
        return self.tokens if rows == self.rows else rows * self.longest


def memory_needs(
    model: "PreTrainedModel", recipe: Recipe, batch: BatchSettings, longest: int, example_passes: int
) -> MemoryNeeds:
    """Return what a checkpoint's attribution takes.

    Args:
        model: in the type that it is loaded in; its weights may be on the meta device.
        recipe: layers, projection, curvature.
        batch: budgets.
        longest: tokens of the longest example.
        example_passes: bytes of such an example's passes through the decoder.

    Raises:
        LayerError: a layer pattern matches nothing, or a layer cannot be tracked.
    """
    from lorif_assets.mathematics.gradients.head import CHUNK_NUMBERS
    from lorif_assets.mathematics.gradients.layers import linear_weights, shares_of_tokens

    layers, shares, weights = tracked_layers(model, recipe), shares_of_tokens(model), linear_weights(model)
    recipe = fitted_recipe(recipe, layers)
    multiplied = [_Multiplied.by(weights[layer.name], shares[layer.name], recipe, longest) for layer in layers]
    shapes = [recipe.projection.shape(layer) for layer in layers]
    size = number_bytes(model)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    dense = sum(d1 * d2 for d1, d2 in shapes)
    rows = max(1, batch.tokens // longest)
    half = batch.gradient_numbers // 2
    slices = max(max(d1 * d2, min(half, rows * d1 * d2)) for d1, d2 in shapes)
    squared = sum(d1 * d1 + d2 * d2 for d1, d2 in shapes)
    whitened = recipe.whitens
    return MemoryNeeds(
        tokens=batch.tokens,
        longest=longest,
        weights=_weights(model),
        projections=sum(_projection_bytes(layer, recipe) for layer in layers),
        passes=example_passes
        + longest * (math.ceil(sum(one.kept_input(size) for one in multiplied)) + _sides_in_work(layers, vocabulary)),
        expert_rows=math.ceil(longest * max(one.rows_laid_out for one in multiplied)),
        logits=min(max(CHUNK_NUMBERS, vocabulary), batch.tokens * vocabulary) * (size + _WIDE_LOGITS * _FP32),
        gradients=_FP32 * (_SLICE_COPIES * slices + min(half, rows * dense)),
        bases=_FP32 * squared + (_FP32 + _FP64) * dense if whitened else 0,
        bases_fit=2 * _FP32 * squared if whitened else 0,
        eigendecomposition=_EIGH_COPIES * _FP64 * max(max(shape) ** 2 for shape in shapes) if whitened else 0,
    )


def _weights(model: "nn.Module") -> int:
    return sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))


def _projection_bytes(layer: "TrackedLayer", recipe: Recipe) -> int:
    from lorif_assets.mathematics.gradients.projection import shapes_of_projection

    projected = shapes_of_projection(layer, recipe.projection)
    return sum(side.nbytes for side in (projected.p_in, projected.p_out) if side is not None)


def _sides_in_work(layers: "Sequence[TrackedLayer]", vocabulary: int) -> int:
    """Return the bytes of a token's input and output gradient of the widest layer, in FP32 and projected.

    The head's are those of a chunk of logits, and counted there.
    """
    in_blocks = [layer.d_in + layer.d_out for layer in layers if layer.d_out != vocabulary]
    return _SIDE_COPIES * _FP32 * max(in_blocks, default=0)


@dataclass(frozen=True)
class _Multiplied:
    """What a token multiplies by a tracked weight: by that of an expert, a share of all tokens."""

    weight: "LinearWeight"
    share: float
    projected: "LayerProjection"
    order: "Contraction"

    @classmethod
    def by(cls, weight: "LinearWeight", share: float, recipe: Recipe, longest: int) -> "_Multiplied":
        """Return it with the order of products that the collector chooses for examples of the largest length."""
        from lorif_assets.mathematics.gradients.contraction import cheapest_order
        from lorif_assets.mathematics.gradients.projection import shapes_of_projection

        projected = shapes_of_projection(weight.layer, recipe.projection)
        return cls(weight, share, projected, cheapest_order(projected, -(-longest // weight.n_experts)))

    def kept_input(self, size: int) -> float:
        """Return the bytes of a token's input, in numbers of this size if not projected; it waits for the backward pass."""
        return self.share * (self._input_width * (_FP32 if self._projects_inputs else size))

    @property
    def rows_laid_out(self) -> float:
        """The bytes of a token's rows of all experts of the weight, both sides, while they are multiplied together."""
        if self.weight.fused is None:
            return 0
        projects_outputs = self.projected.p_out is not None and self.order.outputs
        output_width = self.projected.d2 if projects_outputs else self.weight.layer.d_out
        return _ROW_COPIES * _FP32 * self.share * self.weight.n_experts * (self._input_width + output_width)

    @property
    def _projects_inputs(self) -> bool:
        return self.projected.p_in is not None and self.order.inputs

    @property
    def _input_width(self) -> int:
        return self.projected.d1 if self._projects_inputs else self.weight.layer.d_in


def number_bytes(model: "nn.Module") -> int:
    """Return the bytes of one number of the widest type that a model has."""
    return max(parameter.element_size() for parameter in model.parameters())
