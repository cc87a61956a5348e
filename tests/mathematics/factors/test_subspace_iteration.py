"""Leading components without LAPACK: as good as the exact ones, for every kind of spectrum, and alike for every rank."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode
from lorif_assets.mathematics.factors.jacobi_eigenpairs import jacobi_eigenpairs
from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors, singular_factors
from lorif_assets.mathematics.factors.orthonormal_columns import orthonormal_columns
from lorif_assets.mathematics.factors.subspace_iteration import MatrixBatch, leading_triples
from tests.mathematics.references import relative_error

SPECTRA = {
    "equal": torch.ones_like,
    "slow": lambda j: j**-0.5,
    "fast": lambda j: j**-2,
    "graded": lambda j: 0.7**j,
    "of rank three": lambda j: (j <= 3).float(),
    "zero": lambda j: 0 * j,
}


def with_spectrum(n: int, d1: int, d2: int, spectrum: str, seed: int = 0) -> Tensor:
    """n matrices with these singular values; `independent` numbers have a spectrum of their own."""
    generator = torch.Generator().manual_seed(seed)
    if spectrum == "independent":
        return torch.randn(n, d1, d2, generator=generator)
    rank = min(d1, d2)
    left, right = (torch.linalg.qr(torch.randn(n, d, rank, generator=generator)).Q for d in (d1, d2))
    return (left * SPECTRA[spectrum](torch.arange(1.0, rank + 1))) @ right.mT


def assert_orthonormal(v: Tensor) -> None:
    identity = torch.eye(v.shape[2], dtype=v.dtype).expand(len(v), -1, -1)
    torch.testing.assert_close(v.mT @ v, identity, rtol=0, atol=5e-6)


def kept_shares(gradients: Tensor, u: Tensor, c: int) -> Tensor:
    """The squares that u v^T keeps, as a share of what the best factors of the rank keep."""
    best = torch.linalg.svdvals(gradients.double()).square()[:, :c].sum(1)
    return torch.where(best > 0, u.double().square().sum((1, 2)) / best, 1.0)


@pytest.mark.parametrize(
    ("spectrum", "on_average"), [*((name, 2e-4) for name in SPECTRA), ("independent", 0.015)], ids=str
)
@pytest.mark.parametrize("c", [1, 4, 16])
@pytest.mark.parametrize("shape", [(24, 40), (96, 160), (160, 96)])
def test_nearly_as_much_is_kept_as_can_be(shape, c, spectrum, on_average):
    gradients = with_spectrum(12, *shape, spectrum)
    (found,) = leading_triples([MatrixBatch.of(gradients)], c)
    kept = kept_shares(gradients, found.u, c)
    assert float(1 - kept.mean()) < on_average
    assert float(1 - kept.min()) < 4 * on_average
    assert_orthonormal(found.v)
    # What is kept is the gradient's own: u = G v.
    torch.testing.assert_close(found.u, gradients @ found.v, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rounds", "lost"), [(2, 0.1), (4, 0.03), (8, 0.003)])
def test_every_round_brings_the_hardest_spectrum_nearer(rounds, lost):
    gradients = with_spectrum(12, 96, 288, "independent")
    (found,) = leading_triples([MatrixBatch.of(gradients)], 4, rounds)
    assert lost / 3 < float(1 - kept_shares(gradients, found.u, 4).mean()) < lost


@settings(deadline=None, max_examples=40)
@given(
    d1=st.integers(1, 40),
    d2=st.integers(1, 40),
    rank=st.integers(0, 12),
    c=st.integers(1, 14),
    decay=st.floats(0.05, 1),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
    seed=st.integers(0, 99),
)
def test_factors_in_rounds_are_sound_whatever_the_gradient(d1, d2, rank, c, decay, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(3, d, rank, generator=generator) for d in (d1, d2))
    gradients = (left * decay ** torch.arange(float(rank))) @ right.mT
    gradients[1] = 0
    factors = low_rank_factors(gradients * scale, c, rounds=4)
    kept = min(c, d1, d2)
    assert factors.u.shape == (3, d1, kept)
    assert factors.v.shape == (3, d2, kept)
    assert_orthonormal(factors.v)
    assert not factors.u[1].any()
    u = factors.u / scale
    if rank <= kept:
        assert relative_error(GradientFactors(u, factors.v).dense(), gradients.flatten(1)) < 1e-4
    # Components are singular vectors, largest first.
    gram = u.mT @ u
    squares = gram.diagonal(dim1=1, dim2=2)
    size = float(squares.max()) + 1e-12
    assert float((gram - torch.diag_embed(squares)).abs().max()) < 1e-5 * size
    assert bool((squares[:, :-1] >= squares[:, 1:] - 1e-5 * size).all())


@pytest.mark.parametrize("scale", [1e-39, 1e-41])
def test_numbers_below_the_range_of_fp32_are_no_reason_to_set_a_gradient_aside(scale):
    gradients = with_spectrum(3, 40, 60, "fast") * scale
    factors = low_rank_factors(gradients, 4, rounds=4)
    assert_orthonormal(factors.v)
    assert bool(factors.u.isfinite().all())
    # These numbers have few digits.
    assert float(kept_shares(gradients, factors.u, 4).min()) > 0.5


def test_batches_of_several_shapes_are_factorised_together_as_each_is_alone():
    shapes = [(40, 60), (60, 40), (9, 80), (80, 9), (5, 5), (96, 96)]
    batches = [with_spectrum(3, *shape, "slow", seed) for seed, shape in enumerate(shapes)]
    together = leading_triples([MatrixBatch.of(gradients) for gradients in batches], 4)
    for gradients, found in zip(batches, together, strict=True):
        (alone,) = leading_triples([MatrixBatch.of(gradients)], 4)
        torch.testing.assert_close(found.squares, alone.squares, rtol=1e-5, atol=1e-6)
        assert relative_error(found.u @ found.v.mT, alone.u @ alone.v.mT) < 1e-3


def test_a_gradient_that_is_not_finite_spoils_no_other():
    gradients = with_spectrum(4, 40, 30, "slow")
    alone = low_rank_factors(gradients, 3, rounds=4).dense()
    gradients[2, 5, 7], gradients[3, 0, 0] = float("nan"), float("inf")
    together = low_rank_factors(gradients, 3, rounds=4).dense()
    assert bool(together[:2].isfinite().all())
    assert relative_error(together[:2], alone[:2]) < 1e-5


def test_factors_in_fp64_are_as_near_as_the_iterations_bring_them():
    gradients = with_spectrum(3, 60, 50, "graded").double()
    factors = low_rank_factors(gradients, 5, rounds=8)
    left, values, right = torch.linalg.svd(gradients)
    best = (left[:, :, :5] * values[:, None, :5]) @ right[:, :5]
    assert factors.u.dtype == torch.float64
    assert relative_error(factors.dense(), best.flatten(1)) < 5e-6


@pytest.mark.parametrize("width", [1, 2, 3, 8, 24, 33])
def test_jacobi_finds_the_eigenpairs_that_lapack_finds(width):
    generator = torch.Generator().manual_seed(width)
    x = torch.randn(6, 2 * width, width, generator=generator, dtype=torch.float64)
    x[1] *= 0.5 ** torch.arange(width)
    x[2, :, width // 2 :] = 0
    x[3] = 0
    x[4] = torch.eye(2 * width, width)
    a = x.mT @ x
    values, vectors = jacobi_eigenpairs(a)
    torch.testing.assert_close(values, torch.linalg.eigvalsh(a).flip(1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(width).double().expand(6, -1, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(vectors * values.unsqueeze(1), a @ vectors, rtol=0, atol=1e-6 * width)


@pytest.mark.parametrize("rank", [0, 1, 5, 12])
def test_columns_of_any_rank_become_orthonormal_ones_of_a_span_that_holds_theirs(rank):
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(3, 30, rank, generator=generator) @ torch.randn(3, rank, 12, generator=generator)
    (found,) = orthonormal_columns([x], [torch.randn(30, 12, generator=generator) / 30**0.5])
    assert_orthonormal(found)
    torch.testing.assert_close(found @ (found.mT @ x), x, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("codec", list(FactorCodec))
def test_what_an_accelerator_stores_decodes_to_what_a_cpu_stores(codec, monkeypatch):
    gradients = with_spectrum(5, 40, 30, "fast")
    found = encode(low_rank_factors(gradients, 4), codec)
    monkeypatch.undo()
    expected = encode(low_rank_factors(gradients, 4), codec)
    decoded, by_cpu = (decode(rows, codec, 40, 30).dense() for rows in (found, expected))
    assert found.shape == expected.shape
    assert relative_error(decoded, by_cpu) < (0.05 if codec in {"int8", "int4", "sign"} else 1e-2)


@pytest.mark.usefixtures("accelerated")
def test_factors_that_are_not_singular_yet_are_turned_without_lapack():
    gradients = with_spectrum(5, 30, 20, "slow")
    factors = low_rank_factors(gradients, 6)
    generator = torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    turned = singular_factors(GradientFactors(factors.u @ turn, factors.v @ turn))
    torch.testing.assert_close(turned.u.norm(dim=1), factors.u.norm(dim=1), rtol=1e-5, atol=1e-6)
    assert relative_error(turned.dense(), factors.dense()) < 1e-5
