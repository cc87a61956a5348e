"""Random-sign projections: the same everywhere, unbiased, independent between sides, layers and seeds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.config.recipe import Recipe
from lorif_assets.mathematics.gradients.layers import TrackedLayer
from lorif_assets.mathematics.gradients.projection import (
    Projection,
    fingerprint,
    layer_projection,
    projected,
    random_signs,
)
from tests.mathematics.references import signs

LAYER = TrackedLayer("transformer.h.0.attn.c_attn", 12, 36)
OTHER = TrackedLayer("transformer.h.1.attn.c_attn", 12, 36)

GOLDEN_SIGNS = [[-1, -1, 1, 1], [1, 1, 1, 1], [-1, -1, 1, -1]]
GOLDEN_FINGERPRINT = "8a55b4d89a5742e936e589cb005edc8b"
GOLDEN_IDENTITY_FINGERPRINT = "81d4bdec9dce944ba4269023f94db9db"


def test_the_scheme_of_stored_tables_has_not_changed():
    """Stored factors are of use only with the very signs that they were made with."""
    assert (random_signs(17, LAYER.name, "in", 3, 4) * 2).tolist() == GOLDEN_SIGNS
    assert fingerprint([LAYER, OTHER], Projection(factor=4, seed=17)) == GOLDEN_FINGERPRINT
    assert fingerprint([LAYER, OTHER], Projection(factor=1, seed=17)) == GOLDEN_IDENTITY_FINGERPRINT


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**63),
    layer=st.text(max_size=12),
    side=st.sampled_from(["in", "out"]),
    width=st.integers(1, 40),
    d=st.integers(1, 9),
)
def test_signs_are_the_bits_of_the_documented_stream(seed, layer, side, width, d):
    found = random_signs(seed, layer, side, width, d)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), signs(seed, layer, side, width, d), rtol=1e-7)


def test_every_entry_is_plus_or_minus_one_over_sqrt_d_and_the_signs_balance():
    p = random_signs(3, "layer", "in", 300, 50)
    assert torch.equal(p.abs(), torch.full_like(p, 50**-0.5))
    five_sigma = 5 / p.numel() ** 0.5
    assert abs(float(p.sign().mean())) < five_sigma
    for axis, count in ((0, 300), (1, 50)):
        assert float(p.sign().mean(axis).abs().max()) < 5 / count**0.5


def test_the_expectation_of_p_p_transposed_over_seeds_is_the_identity():
    width, d, seeds = 8, 4, 400
    products = torch.stack([(p := random_signs(seed, "layer", "in", width, d).double()) @ p.T for seed in range(seeds)])
    mean = products.mean(0)
    torch.testing.assert_close(mean.diagonal(), torch.ones(width, dtype=torch.float64), rtol=0, atol=1e-6)
    five_sigma = 5 / (d * seeds) ** 0.5
    assert float((mean - torch.eye(width)).abs().max()) < five_sigma


def test_sides_layers_and_seeds_have_unrelated_signs():
    matrices = [
        random_signs(seed, layer, side, 64, 16).flatten() * 4
        for seed in (0, 1)
        for layer in ("h.0", "h.1")
        for side in ("in", "out")
    ]
    correlations = torch.corrcoef(torch.stack(matrices)) - torch.eye(len(matrices))
    assert float(correlations.abs().max()) < 5 / (64 * 16) ** 0.5


def test_seeds_and_layer_names_that_concatenate_alike_have_different_signs():
    assert not torch.equal(random_signs(1, "1.h", "in", 16, 8), random_signs(11, ".h", "in", 16, 8))


@pytest.mark.parametrize(("width", "factor", "d"), [(768, 16, 48), (7, 2, 3), (3, 8, 1), (1, 1, 1), (5, 1, 5)])
def test_a_projected_width_is_the_quotient_and_at_least_one(width, factor, d):
    assert Projection(factor=factor, seed=0).width(width) == d


@given(width=st.integers(1, 5_000), most=st.integers(1, 5_000), factor=st.integers(1, 9))
def test_a_largest_width_leaves_narrow_sides_and_bounds_wide_ones_whatever_the_factor(width, most, factor):
    assert Recipe(projection_factor=factor, max_width=most).projection.width(width) == min(width, most)


def test_of_a_layer_with_a_largest_width_only_the_wider_side_is_projected():
    found = layer_projection(LAYER, Projection(max_width=20, seed=17))
    assert (found.d1, found.d2) == (12, 20)
    assert found.p_in is None
    assert torch.equal(found.p_out, random_signs(17, LAYER.name, "out", 36, 20))


def test_a_largest_width_above_all_sides_is_no_projection_and_has_its_fingerprint():
    assert fingerprint([LAYER, OTHER], Projection(max_width=36, seed=17)) == GOLDEN_IDENTITY_FINGERPRINT
    narrower = [fingerprint([LAYER, OTHER], Projection(max_width=35, seed=seed)) for seed in (17, 18)]
    assert narrower[0] != narrower[1]


def test_a_largest_width_below_one_is_refused():
    with pytest.raises(ValueError, match="largest projected width must be at least 1, found 0"):
        Projection(max_width=0, seed=0)


@pytest.mark.parametrize("given", [{}, {"factor": 2, "max_width": 64}])
def test_a_projection_has_either_a_factor_or_a_largest_width(given):
    with pytest.raises(ValueError, match="set one of the two"):
        Projection(**given, seed=0)


def test_a_side_is_the_identity_where_its_layer_has_no_matrix():
    for projection in (
        Projection(factor=1, seed=2),
        Projection(factor=4, seed=2),
        Projection(max_width=12, seed=2),
        Projection(max_width=40, seed=2),
    ):
        made = layer_projection(LAYER, projection)
        assert (made.d1, made.d2) == projection.shape(LAYER)
        assert (made.p_in is None, made.p_out is None) == (projection.is_identity(12), projection.is_identity(36))


@pytest.mark.parametrize(
    ("side", "width"), [(60, 60), (128, 128), (512, 128), (1_024, 128), (1_032, 129), (4_096, 512)]
)
def test_with_a_largest_factor_wide_sides_are_divided_by_no_more(side: int, width: int):
    projection = Projection(max_width=128, max_factor=8, seed=0)
    assert projection.width(side) == width
    assert projection.is_identity(side) == (side == width)
    assert str(projection) == "max_width = 128, max_factor = 8"


def test_a_projection_factor_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, found 0"):
        Projection(factor=0, seed=0)


def test_a_layers_projection_has_the_layers_widths_and_one_matrix_per_side():
    projection = layer_projection(LAYER, Projection(factor=5, seed=2))
    assert (projection.d1, projection.d2) == (2, 7)
    assert torch.equal(projection.p_in, random_signs(2, LAYER.name, "in", 12, 2))
    assert torch.equal(projection.p_out, random_signs(2, LAYER.name, "out", 36, 7))


def test_factor_one_is_the_identity_and_stores_no_matrix():
    projection = layer_projection(LAYER, Projection(factor=1, seed=2))
    assert (projection.d1, projection.d2, projection.p_in, projection.p_out) == (12, 36, None, None)
    assert projection.to(torch.device("cpu"), torch.float64) == projection


def test_moving_a_projection_keeps_its_signs():
    projection = layer_projection(LAYER, Projection(factor=4, seed=2))
    moved = projection.to(torch.device("cpu"), torch.float64)
    assert (moved.layer, moved.d1, moved.d2) == (LAYER, 3, 9)
    assert moved.p_in.dtype == moved.p_out.dtype == torch.float64
    assert torch.equal(moved.p_in.float(), projection.p_in)
    assert torch.equal(moved.p_out.float(), projection.p_out)


def test_equal_projections_have_equal_fingerprints_and_any_difference_shows():
    wider = TrackedLayer(LAYER.name, LAYER.d_in, LAYER.d_out + 4)
    same = fingerprint([LAYER, OTHER], Projection(factor=4, seed=0))
    assert same == fingerprint(iter([LAYER, OTHER]), Projection(factor=4, seed=0))
    different = [
        fingerprint([LAYER], Projection(factor=4, seed=0)),
        fingerprint([LAYER, LAYER], Projection(factor=4, seed=0)),
        fingerprint([wider, OTHER], Projection(factor=4, seed=0)),
        fingerprint([LAYER, OTHER], Projection(factor=3, seed=0)),
        fingerprint([LAYER, OTHER], Projection(factor=1, seed=0)),
        fingerprint([LAYER, OTHER], Projection(factor=4, seed=1)),
    ]
    assert len({same, *different}) == 1 + len(different)


def test_an_identity_has_one_fingerprint_whatever_the_seed():
    assert fingerprint([LAYER], Projection(factor=1, seed=0)) == fingerprint([LAYER], Projection(factor=1, seed=99))


@given(width=st.integers(1, 500), factor=st.integers(1, 40), whole=st.integers(0, 200))
def test_sides_up_to_a_width_stay_whole_whatever_the_factor(width, factor, whole):
    projection = Projection(factor=factor, seed=17, whole=whole)
    without = Projection(factor=factor, seed=17)
    assert projection.width(width) == (width if width <= whole else without.width(width))
    assert projection.is_identity(width) == (width <= whole or without.is_identity(width))


def test_an_adapters_rank_is_never_projected():
    matrix = TrackedLayer("layers.0.q_proj.lora_A.default", 512, 16)
    found = layer_projection(matrix, Recipe(track="adapter", projection_factor=8).projection)
    assert (found.d1, found.d2, found.p_out) == (64, 16, None)
    assert Recipe(projection_factor=8).projection.shape(matrix) == (64, 2)


@pytest.mark.usefixtures("accelerated")
def test_an_accelerator_holds_bare_signs_and_projects_exactly():
    projection = layer_projection(LAYER, Projection(factor=4, seed=2))
    moved = projection.to(torch.device("cpu"), torch.float32)
    assert moved.p_in.dtype == moved.p_out.dtype == torch.bfloat16
    assert set(moved.p_in.unique().tolist()) == {-1.0, 1.0}
    again = moved.to(torch.device("cpu"), torch.float32)
    assert (again.p_in is moved.p_in, again.p_out is moved.p_out) == (True, True)
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(projected(x, moved.p_in), x @ projection.p_in, rtol=1e-6, atol=1e-6)
    assert projection.to(torch.device("cpu"), torch.float64).p_in.dtype == torch.float64
