"""What a recipe comes to on one model: which layers are tracked, and how long inputs may be."""

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from lorif_assets.attribution.recipes.fitted_recipe import SMALL_MODEL
from lorif_assets.config.presets import AUTO
from lorif_assets.config.recipe import Recipe
from lorif_assets.models.files.context import context_length, tokenizer_length

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lorif_assets.mathematics.gradients.layers import TrackedLayer

_MOST_TOKENS = 1 << 13
"""Of a vocabulary whose head is tracked by default: a quarter of it has an eigenbasis, which takes its cube."""
DEFAULT_LENGTH = 2_048
"""Tokens of an input, at most, where the recipe says nothing and the model reads as many."""


def tracked_layers(model: "nn.Module", recipe: Recipe) -> "list[TrackedLayer]":
    """Return the layers of a model whose gradients a recipe asks for, in the model's order.

    Where the recipe leaves both layers and widths to the model, those of a small one with a small vocabulary include its LM
    head, which holds half of what such a model has learned.

    Raises:
        LayerError: a pattern matches nothing, nothing is left, or a layer has a form that cannot be tracked.
    """
    from lorif_assets.mathematics.gradients.layers import linear_weights, select_layers

    of_adapter = recipe.track == "adapter"
    chosen = select_layers(model, recipe.include_layers, recipe.exclude_layers, of_adapter=of_adapter)
    if recipe.include_layers or recipe.max_width != AUTO or of_adapter:
        return chosen
    name, weights = head_name(model), linear_weights(model)
    if name not in weights or any(fnmatchcase(name, pattern) for pattern in recipe.exclude_layers):
        return chosen
    head = weights[name].layer
    with_head = [*chosen, head]
    is_small = head.d_out <= _MOST_TOKENS and sum(layer.d_in * layer.d_out for layer in with_head) <= SMALL_MODEL
    return with_head if is_small else chosen


def head_name(model: "nn.Module") -> str | None:
    """Return the module path of a model's LM head, or None where it has none."""
    output_embeddings = getattr(model, "get_output_embeddings", None)
    head = output_embeddings() if output_embeddings else None
    return next((name for name, module in model.named_modules() if module is head), None) if head else None


def longest_input(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", recipe: Recipe) -> int:
    """Return the largest number of tokens of an input: the recipe's, or 2,048, within the model's context.

    Where the recipe has none, the length that the tokenizer names is a bound too.
    """
    wanted = [DEFAULT_LENGTH, tokenizer_length(tokenizer)] if recipe.max_length is None else [recipe.max_length]
    return min(length for length in (*wanted, context_length(model.config)) if length is not None)
