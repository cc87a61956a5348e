"""What a recipe comes to on one model: which layers are tracked, and how long inputs may be."""

from typing import TYPE_CHECKING

from lorif_assets.config.recipe import Recipe
from lorif_assets.models.context import context_length, tokenizer_length

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lorif_assets.mathematics.gradients.layers import TrackedLayer

DEFAULT_LENGTH = 2_048
"""Tokens of an input, at most, where the recipe says nothing and the model reads as many."""


def tracked_layers(model: "nn.Module", recipe: Recipe) -> "list[TrackedLayer]":
    """Return the layers of a model whose gradients a recipe asks for, in the model's order.

    Raises:
        LayerError: a pattern matches nothing, nothing is left, or a layer has a form that cannot be tracked.
    """
    from lorif_assets.mathematics.gradients.layers import select_layers

    return select_layers(model, recipe.include_layers, recipe.exclude_layers, of_adapter=recipe.track == "adapter")


def longest_input(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> int:
    """Return the largest number of tokens of an input: the recipe's, or 2,048, within the model's context.

    Where the recipe has none, the length that the tokenizer names is a bound too.
    """
    wanted = [DEFAULT_LENGTH, tokenizer_length(tokenizer)] if recipe.max_length is None else [recipe.max_length]
    return min(length for length in (*wanted, context_length(model.config)) if length is not None)
