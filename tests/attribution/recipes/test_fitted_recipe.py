"""What is left to the model is decided by its layers' shapes and the bytes alone, before there are data."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.attribution.recipes.fitted_recipe import component_bytes, fitted_recipe, level_rank
from lorif_assets.attribution.recipes.wasted_bytes import wasted_bytes
from lorif_assets.config.recipe import Recipe
from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes
from lorif_assets.mathematics.gradients.layers import TrackedLayer

NARROWEST = 64


def gpt2(blocks: int, width: int) -> list[TrackedLayer]:
    """The blocks' layers of a GPT-2."""
    sides = {"c_attn": (1, 3), "attn.c_proj": (1, 1), "c_fc": (1, 4), "mlp.c_proj": (4, 1)}
    return [
        TrackedLayer(f"h.{block}.{name}", one * width, other * width)
        for block in range(blocks)
        for name, (one, other) in sides.items()
    ]


def llama(blocks: int, width: int, keys: int, hidden: int) -> list[TrackedLayer]:
    """The blocks' layers of a Llama."""
    sides = [(width, width), (width, keys), (width, keys), (width, width), *[(width, hidden)] * 2, (hidden, width)]
    return [TrackedLayer(f"{block}.{at}", *one) for block in range(blocks) for at, one in enumerate(sides)]


MODELS = {
    "width 64": (gpt2(2, 64), 128, 1_600),
    "width 128": (gpt2(2, 128), 128, 1_600),
    # Of the vocabulary's side a quarter.
    "width 128, with the head": ([*gpt2(2, 128), TrackedLayer("lm_head", 128, 4_096)], 1_024, 1_835),
    "four blocks of width 128": (gpt2(4, 128), 128, 1_600),
    "width 768": (gpt2(12, 768), 384, 16 * 12 * (72 + 68 + 2 * 84)),
    "a Llama of width 576": (llama(30, 576, 192, 1_536), 192, 16 * 30 * (4 * 36 + 3 * 44)),
    "a Llama of width 4,096": (llama(32, 4_096, 4_096, 11_008), 1_376, 16 * 32 * (4 * 132 + 3 * 240)),
}


@pytest.mark.parametrize("name", MODELS)
def test_widths_and_bytes_of_known_shapes(name: str) -> None:
    layers, width, size = MODELS[name]
    fitted = fitted_recipe(Recipe(), layers)
    widest = max(max(fitted.projection.shape(layer)) for layer in layers)
    assert (widest, fitted.byte_budget) == (width, size)
    assert not fitted.is_left_to_the_model
    assert fitted == fitted_recipe(Recipe(), list(layers))


def test_what_is_chosen_by_hand_stays() -> None:
    layers = gpt2(2, 128)
    for by_hand in (Recipe(preset="whitened"), Recipe(preset="paper"), Recipe(max_width=70, bytes_per_example=900)):
        assert fitted_recipe(by_hand, layers) is by_hand
    assert fitted_recipe(Recipe(projection_factor=2), layers).projection.factor == 2
    assert fitted_recipe(Recipe(projection_factor=2), layers).byte_budget == 1_600
    assert fitted_recipe(Recipe(rank=3), layers).uniform_rank is None
    assert fitted_recipe(Recipe(rank=3), layers).byte_budget is None
    assert fitted_recipe(Recipe(bytes_per_example=5_000), layers).byte_budget == 5_000


def test_a_bound_on_the_factor_by_hand_stays() -> None:
    head = TrackedLayer("lm_head", 128, 4_096)
    widths = [
        fitted_recipe(Recipe(max_factor=factor), [*gpt2(2, 128), head]).projection.shape(head)[1] for factor in (4, 64)
    ]
    assert widths == [1_024, 128]


def test_more_bytes_are_spent_on_wider_sides() -> None:
    sizes = (400, 800, 1_600, 3_200, 6_400, 12_800)
    widths = [fitted_recipe(Recipe(bytes_per_example=size), gpt2(2, 128)).max_width for size in sizes]
    assert widths == [64, 128, 128, 256, 512, 512]


def test_an_adapters_matrices_are_not_projected_on_the_side_of_their_rank() -> None:
    layers = [TrackedLayer("q.lora_A", 4_096, 8), TrackedLayer("q.lora_B", 8, 4_096)] * 200
    fitted = fitted_recipe(Recipe(track="adapter"), layers)
    assert {fitted.projection.shape(layer)[index] for index, layer in enumerate(layers[:2], start=-1)} == {8}
    assert fitted.byte_budget is not None
    assert fitted.byte_budget >= component_bytes(fitted, layers)


SIDES = st.integers(1, 12_000)
LAYERS = st.lists(st.builds(TrackedLayer, st.uuids().map(str), SIDES, SIDES), min_size=1, max_size=40)
RECIPES = st.builds(
    Recipe,
    factor_dtype=st.sampled_from(["sign", "int4", "int8", "bf16", "fp32"]),
    seed=st.integers(0, 3),
    curvature=st.sampled_from(["ekfac", "kfac"]),
    track=st.sampled_from(["weights", "adapter"]),
)


@given(RECIPES, LAYERS)
def test_whatever_the_shapes_no_side_is_projected_below_64_and_every_layer_gets_a_component(
    recipe: Recipe, layers: list[TrackedLayer]
) -> None:
    fitted = fitted_recipe(recipe, layers)
    shapes = [fitted.projection.shape(layer) for layer in layers]
    for layer, shape in zip(layers, shapes, strict=True):
        for side, width in zip((layer.d_in, layer.d_out), shape, strict=True):
            assert width == side or max(NARROWEST, side // 8) <= width < side
    budget, codec = fitted.byte_budget, FactorCodec(recipe.factor_dtype)
    assert budget is not None
    assert budget >= sum(factor_bytes(codec, *shape, 1) for shape in shapes)
    # Full ranks would take more.
    assert len(layers) == 1 or budget <= sum(factor_bytes(codec, *shape, 10**6) for shape in shapes)


@given(LAYERS)
def test_what_is_left_to_the_model_wastes_nothing(layers: list[TrackedLayer]) -> None:
    fitted = fitted_recipe(Recipe(), layers)
    assert wasted_bytes(fitted, layers) == []
    assert level_rank(fitted, layers) >= 1


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"preset": "whitened"}, r"at f = 8 sides are projected to fewer than 64 numbers \(128 to 16\)"),
        ({"preset": "paper"}, r"at f = 8 sides are projected to fewer than 64 numbers \(128 to 16\)"),
        (
            {"preset": "whitened"},
            r"8 of 8 layers are projected and then kept at their full rank \(16 of 16 x 48 numbers",
        ),
        (
            {"max_width": 64, "rank": 64},
            r"8 of 8 layers are projected and then kept at their full rank \(64 of 64 x 64",
        ),
        ({"max_width": 64, "bytes_per_example": 50_000}, r"of 50,000 bytes per example at most 10,240 can be spent"),
        ({"factor_dtype": "bf16"}, r'`factor_dtype = "bf16"` takes 16 bits .* "sign" keeps about 16 times'),
    ],
)
def test_what_a_recipe_by_hand_wastes_is_said_with_what_to_do(fields: dict[str, object], said: str) -> None:
    layers = gpt2(2, 128)
    found = wasted_bytes(fitted_recipe(Recipe.model_validate(fields), layers), layers)
    assert [one for one in found if re.search(said, one)], found


def test_a_recipe_by_hand_that_spends_its_bytes_well_is_let_be() -> None:
    assert wasted_bytes(Recipe(projection_factor=1, bytes_per_example=3_200), gpt2(2, 128)) == []
    assert wasted_bytes(Recipe(preset="paper", projection_factor=1), gpt2(2, 128)) == []
