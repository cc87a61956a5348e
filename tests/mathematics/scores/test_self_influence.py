"""Self-influence against g^T H^-1 g with dense matrices in FP64."""

from dataclasses import replace

import pytest
import torch

from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal, KroneckerPreconditioner
from lorif_assets.mathematics.curvature.kfac_bases import KfacCovariances
from lorif_assets.mathematics.curvature.svd import CurvatureState, random_basis
from lorif_assets.mathematics.curvature.svd_preconditioner import CurvatureForm, DampingRule, Preconditioner
from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors
from lorif_assets.mathematics.scores.self_influence import relative_influence, self_influence

N, D1, D2 = 30, 6, 5


@pytest.fixture
def gradients():
    return torch.randn(N, D1, D2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def bases():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(80, D1, generator=generator), torch.randn(80, D2, generator=generator)
    return KfacCovariances.empty(D1, D2, torch.device("cpu")).add(*tokens).bases(0.1)


@pytest.mark.parametrize("form", CurvatureForm)
def test_with_eigenpairs_it_is_the_quadratic_form_of_the_damped_inverse(gradients, form):
    factors = low_rank_factors(gradients, 2)
    state = CurvatureState.empty(random_basis(D1 * D2, D1 * D2, 0)).add(factors)
    preconditioner = Preconditioner.from_spectrum(state.spectrum(D1 * D2), DampingRule.TRACE, 0.5, form)
    g = factors.dense().double()
    h = g.mT @ g
    inverse = torch.linalg.inv(h + 0.5 * h.trace() / len(h) * torch.eye(len(h)))
    expected = torch.einsum("ni,ij,nj->n", g, inverse, g)
    torch.testing.assert_close(self_influence(factors, preconditioner), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("whitening_rank", [None, 2])
def test_with_whitened_factors_it_is_the_quadratic_form_in_the_kronecker_eigenbasis(gradients, bases, whitening_rank):
    # A side of 6 or 5 is wider than twice 2, so that it is whitened by its two leading eigenvectors, in its own axes.
    bases = replace(bases, whitening_rank=whitening_rank)
    fisher = FisherDiagonal.of(bases.rotate(gradients))
    factors = low_rank_factors(bases.whitened(gradients), D2)
    found = self_influence(factors, KroneckerPreconditioner(bases, fisher.eigenvalues, 0.2))
    q = torch.kron(bases.q_in.double(), bases.q_out.double())
    eigenvalues = fisher.eigenvalues.flatten()
    inverse = q @ torch.diag(1 / (eigenvalues + 0.2 * eigenvalues.mean())) @ q.mT
    g = gradients.flatten(1).double()
    torch.testing.assert_close(found, torch.einsum("ni,ij,nj->n", g, inverse, g), rtol=1e-3, atol=1e-6)


def test_a_layer_without_training_gradients_adds_nothing(gradients, bases):
    silent = KroneckerPreconditioner(bases, torch.zeros(D1, D2, dtype=torch.float64), 0.2)
    assert self_influence(low_rank_factors(gradients, 2), silent).tolist() == [0.0] * N


def test_a_silent_example_scores_zero_and_a_louder_one_no_more_than_a_quiet_one():
    scores = torch.tensor([[2.0, 4.0, 0.0], [-1.0, -2.0, 0.0]])
    found = relative_influence(scores, torch.tensor([1.0, 4.0, 0.0]))
    assert found.tolist() == [[2.0, 2.0, 0.0], [-1.0, -1.0, 0.0]]


def test_it_is_never_negative():
    nothing = GradientFactors(torch.zeros(3, D1, 1), torch.zeros(3, D2, 1))
    state = CurvatureState.empty(random_basis(D1 * D2, 4, 0))
    silent = Preconditioner.from_spectrum(state.spectrum(2), DampingRule.TRACE, 1.0, CurvatureForm.TAIL_CORRECTED)
    assert self_influence(nothing, silent).eq(0).all()
