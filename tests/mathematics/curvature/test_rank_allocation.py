"""Ranks from a byte budget: the worth of components decides, and the budget holds."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.mathematics.curvature.ekfac import EkfacCurvature, FisherDiagonal
from lorif_assets.mathematics.curvature.kfac_bases import KfacCovariances
from lorif_assets.mathematics.curvature.rank_allocation import (
    LayerDemand,
    allocate_ranks,
    kept_energy,
    query_energy,
)

positive = st.floats(1e-6, 1e6)
demands = st.lists(
    st.builds(
        lambda energy, values, size: LayerDemand(energy, sorted(values, reverse=True), size),
        positive,
        st.lists(positive, min_size=1, max_size=6),
        st.integers(1, 40),
    ),
    min_size=1,
    max_size=5,
)


@given(demands, st.integers(0, 600))
def test_the_budget_holds_and_nothing_that_fits_is_left_out(layers, extra):
    named = {f"layer {k}": layer for k, layer in enumerate(layers)}
    budget = sum(layer.component_bytes for layer in layers) + extra
    ranks = allocate_ranks(named, budget)
    left = budget - sum(ranks[name] * layer.component_bytes for name, layer in named.items())
    assert left >= 0
    for name, layer in named.items():
        assert 1 <= ranks[name] <= len(layer.squared_singular_values)
        assert ranks[name] == len(layer.squared_singular_values) or layer.component_bytes > left


@given(demands, st.integers(0, 300), st.integers(1, 300))
def test_a_larger_budget_never_removes_expected_error_less(layers, extra, more):
    named = {
        f"layer {k}": LayerDemand(layer.query_energy, layer.squared_singular_values, 8)
        for k, layer in enumerate(layers)
    }
    smallest = 8 * len(layers)

    def removed(budget: int) -> float:
        ranks = allocate_ranks(named, budget)
        return sum(layer.query_energy * sum(layer.squared_singular_values[: ranks[n]]) for n, layer in named.items())

    assert removed(smallest + extra + more) >= removed(smallest + extra)


def test_components_go_where_they_are_worth_most_per_byte():
    layers = {
        "dull": LayerDemand(1.0, [1.0, 0.9, 0.8], 10),
        "sharp": LayerDemand(100.0, [1.0, 0.5, 0.001], 10),
        "cheap": LayerDemand(1.0, [1.0, 0.9, 0.8], 1),
    }
    assert allocate_ranks(layers, 21 + 10) == {"dull": 1, "sharp": 2, "cheap": 1}
    assert allocate_ranks(layers, 21 + 12) == {"dull": 1, "sharp": 2, "cheap": 3}
    assert allocate_ranks(layers, 21 + 22) == {"dull": 2, "sharp": 2, "cheap": 3}


def test_a_budget_below_one_component_per_layer_is_refused_with_what_it_takes():
    with pytest.raises(ValueError, match="19 bytes per example are too few: one component of every layer takes 20"):
        allocate_ranks({name: LayerDemand(1.0, [1.0], 10) for name in "ab"}, 19)


def test_query_energy_is_the_mean_squared_size_of_the_preconditioned_examples():
    generator = torch.Generator().manual_seed(0)
    x, dy = torch.randn(20, 6, 5, generator=generator), torch.randn(20, 6, 4, generator=generator)
    gradients = torch.einsum("nti,nto->nio", x, dy)
    bases = KfacCovariances.empty(5, 4, torch.device("cpu")).add(x.flatten(0, 1), dy.flatten(0, 1)).bases(0.1)
    fisher = FisherDiagonal.of(bases.rotate(gradients))
    ready = EkfacCurvature(bases, fisher, 0.1).preconditioner().apply(gradients.flatten(1))
    assert query_energy(bases, fisher, 0.1) == pytest.approx(float(ready.square().sum(1).mean()), rel=1e-4)
    assert query_energy(bases, FisherDiagonal.empty(5, 4, torch.device("cpu")), 0.1) == 0.0


@pytest.mark.parametrize("k", [1, 3, 6])
def test_kept_energy_is_the_share_of_the_whitened_squared_norm_in_leading_components(k):
    generator = torch.Generator().manual_seed(0)
    tokens = KfacCovariances.empty(6, 8, torch.device("cpu")).add(
        torch.randn(50, 6, generator=generator), torch.randn(50, 8, generator=generator)
    )
    bases = tokens.bases(0.1)
    rotated = bases.rotate(torch.randn(5, 6, 8, generator=generator))
    values = torch.linalg.svdvals(rotated * bases.scale).square()
    share = kept_energy(bases, FisherDiagonal.of(rotated), float(values[:, :k].sum()))
    assert share == pytest.approx(float(values[:, :k].sum() / values.sum()), rel=1e-5)


def test_of_gradients_of_zero_all_is_kept():
    bases = KfacCovariances.empty(2, 3, torch.device("cpu")).bases(0.1)
    assert kept_energy(bases, FisherDiagonal.of(torch.zeros(4, 2, 3)), 0.0) == 1.0
