"""K-FAC in the projected space against its definition: the inverse of a whole D x D Kronecker product."""

import pytest
import torch
from torch import Tensor

from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal
from lorif_assets.mathematics.curvature.kfac import KfacCurvature
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.factors.low_rank import low_rank_factors
from lorif_assets.mathematics.scores.scoring import block_scores
from tests.mathematics.curvature.test_ekfac import D1, D2, covariances, random_data
from tests.mathematics.references import relative_error


def naive_kfac(x: Tensor, dy: Tensor, train: Tensor, queries: Tensor, m: float) -> Tensor:
    """Scores [Q, N] by (A x B + m tr(A x B) / D I)^-1, D x D, in FP64."""
    tokens = x.shape[0] * x.shape[1]
    of_inputs = torch.einsum("nti,ntj->ij", x.double(), x.double()) / tokens
    of_outputs = torch.einsum("nti,ntj->ij", dy.double(), dy.double()) / tokens
    curvature = torch.kron(of_inputs, of_outputs)
    damped = curvature + m * curvature.trace() / len(curvature) * torch.eye(len(curvature))
    return queries.double().flatten(1) @ torch.linalg.inv(damped) @ train.double().flatten(1).T


def scores(bases: KfacBases, train: Tensor, queries: Tensor, m: float) -> Tensor:
    rotated = bases.rotate(train)
    stored = low_rank_factors(rotated * bases.scale, min(D1, D2))
    curvature = KfacCurvature.empty(bases, m).add(FisherDiagonal.of(rotated))
    assert curvature.count == len(train)
    ready = curvature.preconditioner().apply(queries.flatten(1))
    return block_scores({"layer": ready}, {"layer": stored})


@pytest.mark.parametrize("m", [0.1, 3.0])
@pytest.mark.parametrize("scale_damping", [0.1, 1.0])
def test_full_rank_scores_are_those_of_a_naive_kfac_whatever_the_whitening(m: float, scale_damping: float) -> None:
    x, dy, train = random_data(0)
    queries = random_data(1)[2]
    found = scores(covariances(x, dy).bases(scale_damping), train, queries, m)
    assert relative_error(found, naive_kfac(x, dy, train, queries, m)) < 1e-4


def test_a_layer_without_any_gradient_scores_nothing() -> None:
    x, dy, train = random_data(7)
    assert not scores(covariances(x, dy * 0).bases(0.1), train * 0, train, 0.1).any()
