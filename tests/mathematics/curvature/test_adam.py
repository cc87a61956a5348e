"""Adam's second moments along the axes of K-FAC's bases, against dense FP64 matrices."""

import pytest
import torch
from torch import Tensor

from lorif_assets.errors import LorifError
from lorif_assets.mathematics.curvature.adam import AdamCurvature, along_axes
from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.factors.low_rank import low_rank_factors
from lorif_assets.mathematics.scores.scoring import block_scores
from tests.mathematics.curvature.test_ekfac import D1, D2, covariances, random_data


def roots(d1: int, d2: int) -> Tensor:
    return torch.rand(d1, d2, generator=torch.Generator().manual_seed(3)) + 0.01


def in_own_axes(d1: int, d2: int) -> KfacBases:
    return KfacBases(torch.eye(d1), torch.eye(d2), torch.rand(d1) + 0.1, torch.rand(d2) + 0.1, 0.1)


def curvature(bases: KfacBases, train: Tensor, damping: float) -> AdamCurvature:
    return AdamCurvature.empty(bases, damping).add(FisherDiagonal.of(bases.rotate(train)))


def with_moments(bases: KfacBases, d: Tensor) -> KfacBases:
    return KfacBases.from_tensors({**bases.tensors(), "optimizer": d.float()}, bases.damping, torch.device("cpu"))


def test_along_the_weights_own_axes_the_roots_are_as_they_are() -> None:
    d = roots(D1, D2)
    torch.testing.assert_close(along_axes(d, in_own_axes(D1, D2), None, None), d.double())


@pytest.mark.parametrize("projected", [False, True])
def test_along_other_axes_they_are_the_diagonal_of_the_rotated_matrix(projected: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    width, height = (3 * D1, 2 * D2) if projected else (D1, D2)
    p_in = torch.randn(width, D1, generator=generator) if projected else None
    p_out = torch.randn(height, D2, generator=generator) if projected else None
    x, dy, _ = random_data(0)
    bases = covariances(x, dy).bases(0.1)
    d = roots(width, height)
    left = bases.q_in.double() if p_in is None else p_in.double() @ bases.q_in.double()
    right = bases.q_out.double() if p_out is None else p_out.double() @ bases.q_out.double()
    axes = torch.kron(left / left.norm(dim=0), right / right.norm(dim=0))
    expected = (axes.mT @ torch.diag(d.double().flatten()) @ axes).diagonal().view(D1, D2)
    torch.testing.assert_close(along_axes(d, bases, p_in, p_out), expected)


@pytest.mark.parametrize("m", [1e-6, 0.1])
def test_in_the_weights_own_axes_scores_are_gradients_over_the_roots(m: float) -> None:
    train, queries = random_data(0)[2], random_data(1)[2]
    d = roots(D1, D2)
    bases = with_moments(in_own_axes(D1, D2), d)
    stored = low_rank_factors(bases.whitened(train), min(D1, D2))
    ready = curvature(bases, train, m).preconditioner().apply(queries.flatten(1))
    found = block_scores({"layer": ready}, {"layer": stored}).double()
    divisor = d.double().flatten() + m * d.double().mean()
    expected = (queries.double().flatten(1) / divisor) @ train.double().flatten(1).mT
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_the_weight_of_norms_is_the_mean_influence_on_oneself_over_the_mean_squared_norm() -> None:
    train = random_data(0)[2]
    d = roots(D1, D2)
    bases = with_moments(in_own_axes(D1, D2), d)
    found = curvature(bases, train, 0.1).preconditioner().norm_weight
    divisor = d.double() + 0.1 * d.double().mean()
    own = (train.double().square() / divisor).sum((1, 2)).mean()
    assert found == pytest.approx(float(own / bases.whitened(train).double().square().sum((1, 2)).mean()), rel=1e-4)
    assert curvature(bases, train * 0, 0.1).preconditioner().norm_weight == 0.0


def test_bases_keep_the_roots_where_they_are_stored() -> None:
    bases = with_moments(in_own_axes(D1, D2), roots(D1, D2))
    again = KfacBases.from_tensors(bases.tensors(), bases.damping, torch.device("cpu"))
    assert again.optimizer is not None
    assert again.optimizer.equal(roots(D1, D2))
    assert "optimizer" not in in_own_axes(D1, D2).tensors()


def test_bases_without_the_optimizer_s_state_are_refused() -> None:
    with pytest.raises(LorifError, match=r"without the optimiser's state.*optimizer\.pt"):
        _ = AdamCurvature.empty(in_own_axes(D1, D2), 0.1).eigenvalues
