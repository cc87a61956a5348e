"""Which layers a recipe tracks on a model: of a small one that is left to itself, the LM head too."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from lorif_assets.attribution.recipes.fitted_recipe import SMALL_MODEL
from lorif_assets.attribution.recipes.recipe_on_model import tracked_layers
from lorif_assets.config.recipe import Recipe


def gpt2(vocabulary=512, width=32):
    config = GPT2Config(vocab_size=vocabulary, n_positions=16, n_embd=width, n_layer=1, n_head=2)
    with torch.device("meta"):
        return GPT2LMHeadModel(config)


def llama():
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 1}
    with torch.device("meta"):
        return LlamaForCausalLM(LlamaConfig(vocab_size=512, **sizes))


def names(model, **recipe):
    return [layer.name for layer in tracked_layers(model, Recipe(**recipe))]


@pytest.mark.parametrize("model", [gpt2(), llama()], ids=["gpt2, tied", "llama"])
def test_the_head_of_a_small_model_comes_last(model):
    blocks = names(model, preset="whitened")
    assert "lm_head" not in blocks
    assert names(model) == [*blocks, "lm_head"]
    assert names(model, bytes_per_example=800) == [*blocks, "lm_head"]


def test_small_is_a_model_whose_blocks_and_head_are_small_together():
    width = 256
    blocks = sum(layer.d_in * layer.d_out for layer in tracked_layers(gpt2(width=width), Recipe(preset="whitened")))
    largest = (SMALL_MODEL - blocks) // width
    assert names(gpt2(largest, width))[-1] == "lm_head"
    assert "lm_head" not in names(gpt2(largest + 1, width))


def test_the_head_of_a_vocabulary_whose_eigenbasis_would_take_minutes_is_left_out():
    assert names(gpt2(8_192, width=8))[-1] == "lm_head"
    assert "lm_head" not in names(gpt2(8_193, width=8))


@pytest.mark.parametrize(
    "recipe",
    [
        {"preset": "paper"},
        {"preset": "whitened"},
        {"projection_factor": 2},
        {"max_width": 16},
        {"include_layers": ("*attn*",)},
        {"exclude_layers": ("lm_*",)},
    ],
    ids=str,
)
def test_layers_and_widths_that_are_chosen_by_hand_are_the_blocks_alone(recipe):
    assert "lm_head" not in names(gpt2(), **recipe)


def test_a_model_without_a_head_or_with_one_of_another_form_has_its_blocks_tracked():
    model = gpt2()
    blocks = names(model, preset="whitened")
    model.lm_head = torch.nn.Identity()
    assert names(model) == blocks
    assert names(model.transformer) == [name.removeprefix("transformer.") for name in blocks]
