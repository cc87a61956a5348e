"""The order of the products changes no gradient, only what it costs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.mathematics.gradients.contraction import (
    BY_TOKEN,
    Contraction,
    cheapest_order,
    contracted_gradients,
    multiplications,
)
from lorif_assets.mathematics.gradients.layers import TrackedLayer
from lorif_assets.mathematics.gradients.projection import LayerProjection, Projection, layer_projection

ORDERS = [BY_TOKEN, Contraction(inputs=True, outputs=False), Contraction(inputs=False, outputs=True)]


def in_double(d_in: int, d_out: int, factor: int) -> LayerProjection:
    return layer_projection(TrackedLayer("layer", d_in, d_out), Projection(factor=factor, seed=3)).to(
        torch.device("cpu"), torch.float64
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("max_numbers", [1, 100, 1 << 20])
def test_any_order_and_any_budget_give_the_gradient_of_projected_tokens(order, max_numbers):
    projection = in_double(12, 20, 4)
    generator = torch.Generator().manual_seed(0)
    calls = [tuple(torch.randn(5, 7, d, generator=generator, dtype=torch.float64) for d in (12, 20)) for _ in range(2)]
    expected = sum(torch.einsum("bti,bto->bio", x @ projection.p_in, dy @ projection.p_out) for x, dy in calls)[1:4]
    kept = [
        (x @ projection.p_in if order.inputs else x, dy @ projection.p_out if order.outputs else dy) for x, dy in calls
    ]
    found = contracted_gradients(kept, slice(1, 4), projection, order, max_numbers)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 8), st.integers(1, 512))
def test_the_chosen_order_never_costs_more_than_projecting_every_token(d_in, d_out, factor, tokens):
    projection = layer_projection(TrackedLayer("layer", d_in, d_out), Projection(factor=factor, seed=3))
    chosen = cheapest_order(projection, tokens)
    assert multiplications(projection, tokens, chosen) <= multiplications(projection, tokens, BY_TOKEN)


def test_the_wide_side_of_a_layer_is_projected_after_the_sum_over_many_tokens():
    widening = layer_projection(TrackedLayer("mlp.c_fc", 768, 3072), Projection(factor=8, seed=3))
    narrowing = layer_projection(TrackedLayer("mlp.c_proj", 3072, 768), Projection(factor=8, seed=3))
    assert cheapest_order(widening, 512) == Contraction(inputs=True, outputs=False)
    assert cheapest_order(narrowing, 512) == Contraction(inputs=False, outputs=True)
    assert cheapest_order(widening, 16) == BY_TOKEN
    assert multiplications(widening, 512, cheapest_order(widening, 512)) < 0.5 * multiplications(
        widening, 512, BY_TOKEN
    )


def test_layers_that_are_not_projected_have_nothing_to_put_off():
    assert cheapest_order(layer_projection(TrackedLayer("layer", 8, 64), Projection(factor=1, seed=3)), 512) == BY_TOKEN


@pytest.mark.usefixtures("accelerated")
def test_where_projecting_is_cheap_every_token_is_projected():
    narrowing = layer_projection(TrackedLayer("mlp.c_proj", 3072, 768), Projection(factor=8, seed=3))
    signs = narrowing.to(torch.device("cpu"), torch.float32)
    assert cheapest_order(narrowing, 512) != BY_TOKEN
    assert cheapest_order(signs, 512) == BY_TOKEN
