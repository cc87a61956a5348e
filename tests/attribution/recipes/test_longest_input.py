"""How long inputs may be: what the recipe says, within what the model reads; else 2,048 or the model's context."""

import pytest
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel

from lorif_assets.attribution.recipes.recipe_on_model import longest_input
from lorif_assets.config.recipe import Recipe
from tests.data.conftest import make_tokenizer


def model(context: int) -> PreTrainedModel:
    config = GPT2Config(vocab_size=300, n_positions=context, n_embd=4, n_layer=1, n_head=1)
    loaded: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return loaded


@pytest.mark.parametrize(
    ("max_length", "context", "of_tokenizer", "expected"),
    [
        (None, 1024, int(1e30), 1024),
        (None, 8192, int(1e30), 2048),
        (None, 1024, 256, 256),
        (None, 1024, 4096, 1024),
        (512, 1024, int(1e30), 512),
        (4096, 8192, int(1e30), 4096),
        # No model reads beyond its positions; a tokenizer's length is a habit, which the recipe overrules.
        (4096, 1024, int(1e30), 1024),
        (512, 1024, 256, 512),
    ],
)
def test_the_recipe_the_context_and_the_tokenizer_bound_it(
    max_length: int | None, context: int, of_tokenizer: int, expected: int
) -> None:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = of_tokenizer
    assert longest_input(model(context), tokenizer, Recipe(max_length=max_length)) == expected
