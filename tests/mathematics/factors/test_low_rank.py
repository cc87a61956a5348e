"""Rank-c factors: nearly the best that any rank c can do, exact at full rank, v orthonormal whatever the gradient."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorif_assets.mathematics.factors.low_rank import (
    GradientFactors,
    low_rank_factors,
    power_iterations,
    singular_factors,
)
from tests.mathematics.references import best_rank_error, gradient_matrix, relative_error


def decaying_gradients(n: int, d1: int, d2: int, power: float, seed: int = 0) -> Tensor:
    """n matrices with singular values j^-power."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(d1, d2)
    left = torch.linalg.qr(torch.randn(n, d1, rank, generator=generator)).Q
    right = torch.linalg.qr(torch.randn(n, d2, rank, generator=generator)).Q
    return (left * torch.arange(1, rank + 1).pow(-power)) @ right.mT


def assert_orthonormal(v: Tensor) -> None:
    identity = torch.eye(v.shape[-1], dtype=v.dtype).expand(v.shape[0], -1, -1)
    torch.testing.assert_close(v.mT @ v, identity, rtol=0, atol=1e-5)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("c", [1, 2, 4, 8])
@pytest.mark.parametrize("shape", [(24, 40), (40, 24)])
def test_the_error_on_decaying_spectra_is_the_best_to_half_a_percent_on_average_and_ten_at_worst(shape, c, power):
    """The worst are examples whose leading singular vector happens to be nearly orthogonal to the start."""
    gradients = decaying_gradients(40, *shape, power)
    factors = low_rank_factors(gradients, c)
    assert factors.u.shape == (40, shape[0], c)
    assert factors.v.shape == (40, shape[1], c)
    errors = torch.linalg.vector_norm(factors.dense() - gradients.flatten(1), dim=1)
    best = torch.tensor([best_rank_error(g, c) for g in gradients])
    assert float((errors / best).mean()) < 1.005
    assert float((errors / best).max()) < 1.1
    assert_orthonormal(factors.v)


@settings(deadline=None, max_examples=25)
@given(d1=st.integers(1, 7), d2=st.integers(1, 7), extra=st.integers(0, 3), seed=st.integers(0, 99))
def test_full_rank_factors_are_the_gradient_itself(d1, d2, extra, seed):
    gradients = torch.randn(3, d1, d2, generator=torch.Generator().manual_seed(seed))
    factors = low_rank_factors(gradients, min(d1, d2) + extra)
    assert factors.u.shape[2] == min(d1, d2)
    assert relative_error(factors.dense(), gradients.flatten(1)) < 1e-5
    assert_orthonormal(factors.v)


@settings(deadline=None, max_examples=25)
@given(
    d1=st.integers(1, 7), d2=st.integers(1, 7), rank=st.integers(0, 3), spare=st.integers(0, 3), seed=st.integers(0, 99)
)
def test_a_gradient_of_rank_at_most_c_is_kept_exactly(d1, d2, rank, spare, seed):
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(3, d, rank, generator=generator) for d in (d1, d2))
    gradients = left @ right.mT
    factors = low_rank_factors(gradients, max(1, rank + spare))
    assert relative_error(factors.dense(), gradients.flatten(1)) < 1e-5
    assert_orthonormal(factors.v)


@pytest.mark.parametrize("c", [1, 2, 3])
def test_a_zero_gradient_among_others_has_zero_u_and_orthonormal_v(c):
    gradients = decaying_gradients(3, 5, 4, 1.0)
    gradients[1] = 0
    factors = low_rank_factors(gradients, c)
    assert not factors.u[1].any()
    assert factors.u[0].any()
    assert_orthonormal(factors.v)


@pytest.mark.parametrize("c", [1, 3])
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_factors_follow_the_scale_of_the_gradient(c, scale):
    gradients = decaying_gradients(4, 6, 5, 1.0)
    plain, scaled = low_rank_factors(gradients, c), low_rank_factors(gradients * scale, c)
    assert relative_error(scaled.dense() / scale, plain.dense()) < 1e-4
    assert_orthonormal(scaled.v)


@pytest.mark.parametrize("c", [1, 3, 4])
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_singular_factors_have_the_singular_values_as_norms_largest_first(c, scale):
    gradients = decaying_gradients(3, 6, 4, 1.0)
    factors = low_rank_factors(gradients * scale, c)
    singular = singular_factors(factors)
    norms = torch.linalg.vector_norm(singular.u / scale, dim=1)
    assert relative_error(norms, torch.linalg.svdvals(gradients)[:, :c]) < 1e-3
    assert relative_error(singular.dense() / scale, factors.dense() / scale) < 1e-5
    assert_orthonormal(singular.v)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_factors_in_rounds_are_of_the_gradients_size_too(scale):
    gradients = scale * torch.randn(5, 12, 9, generator=torch.Generator().manual_seed(0))
    found = low_rank_factors(gradients, 9, rounds=2).dense()
    torch.testing.assert_close(found, gradients.flatten(1), rtol=1e-4, atol=1e-4 * scale)


def test_an_examples_factors_depend_on_it_alone():
    gradients = decaying_gradients(6, 9, 7, 0.5)
    together = low_rank_factors(gradients, 2).dense()
    for i in range(6):
        assert relative_error(low_rank_factors(gradients[i : i + 1], 2).dense()[0], together[i]) < 1e-5


def test_no_gradients_give_no_factors():
    factors = low_rank_factors(torch.empty(0, 5, 4), 2)
    assert (factors.u.shape, factors.v.shape) == ((0, 5, 2), (0, 4, 2))
    assert factors.dense().shape == (0, 20)


@pytest.mark.parametrize(
    ("given_dtype", "dtype"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_factors_are_computed_in_fp32_at_least(given_dtype, dtype):
    gradients = decaying_gradients(2, 5, 4, 1.0).to(given_dtype)
    factors = low_rank_factors(gradients, 4)
    assert factors.u.dtype == factors.v.dtype == dtype
    assert relative_error(factors.dense(), gradients.flatten(1)) < 1e-5


def test_a_rank_below_one_is_refused():
    with pytest.raises(ValueError, match="at least 1, found 0"):
        low_rank_factors(torch.ones(1, 2, 2), 0)


def test_rank_one_takes_eight_iterations_and_more_sixteen():
    assert [power_iterations(c) for c in (1, 2, 32)] == [8, 16, 16]


@settings(deadline=None, max_examples=25)
@given(shape=st.tuples(*[st.integers(1, 5)] * 4), scale=st.sampled_from([1e-6, 1.0, 1e6]), seed=st.integers(0, 99))
def test_dense_rows_are_row_major_products_and_squared_norms_are_theirs(shape, scale, seed):
    """Also of factors whose v is not orthonormal, as stored ones are not quite."""
    n, d1, d2, c = shape
    generator = torch.Generator().manual_seed(seed)
    factors = GradientFactors(
        scale * torch.randn(n, d1, c, generator=generator), torch.randn(n, d2, c, generator=generator)
    )
    expected = gradient_matrix(factors)
    # Against the terms' magnitudes: their sum may cancel to nearly nothing.
    magnitudes = GradientFactors(factors.u.abs(), factors.v.abs()).dense()
    assert bool(((factors.dense() - expected).abs() <= 1e-6 * magnitudes).all())
    torch.testing.assert_close(factors.squared_norms(), expected.square().sum(1), rtol=1e-9, atol=scale**2 * 1e-12)


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (12, 300), (140, 150)])
@pytest.mark.parametrize("c", [2, 5])
def test_no_factors_of_their_rank_come_nearer_but_by_a_hair(shape, c):
    """Narrow layers by an eigenproblem, layers that are wide on both sides by iterations."""
    generator = torch.Generator().manual_seed(3)
    g = torch.randn(6, *shape, generator=generator) * torch.linspace(2, 0.1, shape[1]) ** 3
    squares = torch.linalg.svdvals(g.double()).square()
    least = (squares[:, c:].sum() / squares.sum()).sqrt()
    factors = low_rank_factors(g, c)
    error = (g - factors.u @ factors.v.mT).norm() / g.norm()
    tolerance = 1e-5 if min(shape) <= 128 else 0.02
    assert least * (1 - 1e-6) <= error <= least * (1 + tolerance)
    identity = torch.eye(c).expand(6, c, c)
    assert torch.allclose(factors.v.mT @ factors.v, identity, atol=1e-5)


@pytest.mark.parametrize(("numbers", "sizes"), [(100, [3, 3, 1]), (30, [1] * 7), (1, [1] * 7), (10_000, [7])])
def test_dense_gradients_come_in_blocks_of_as_many_numbers_as_may_be_held(
    monkeypatch: pytest.MonkeyPatch, numbers: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("lorif_assets.mathematics.factors.low_rank._CPU_BLOCK_NUMBERS", numbers)
    generator = torch.Generator().manual_seed(0)
    factors = GradientFactors(torch.randn(7, 5, 2, generator=generator), torch.randn(7, 6, 2, generator=generator))
    blocks = list(factors.dense_blocks())
    assert [len(block) for block in blocks] == sizes
    assert torch.equal(torch.cat(blocks), factors.dense())
