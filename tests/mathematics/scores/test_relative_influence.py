"""Relative influence against dense matrices in FP64: sizes of examples, weights of layers, and both rankings of a scan."""

import pytest
import torch

from lorif_assets.mathematics.curvature.ekfac import EkfacCurvature, FisherDiagonal
from lorif_assets.mathematics.curvature.kfac import KfacCurvature
from lorif_assets.mathematics.curvature.kfac_bases import KfacCovariances
from lorif_assets.mathematics.curvature.svd import CurvatureState, random_basis
from lorif_assets.mathematics.curvature.svd_preconditioner import CurvatureForm, DampingRule, Preconditioner
from lorif_assets.mathematics.factors.codec import FactorCodec, decode, encode, scored_form
from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors
from lorif_assets.mathematics.scores.relative_influence import Rankings, ScoredBlock, squared_sizes
from lorif_assets.mathematics.scores.self_influence import self_influence

N, D1, D2 = 40, 6, 5
RANK = 5


@pytest.fixture
def gradients():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, D1, D2, generator=generator) * torch.logspace(-2, 2, N)[:, None, None]


@pytest.fixture
def bases():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(80, D1, generator=generator), torch.randn(80, D2, generator=generator)
    return KfacCovariances.empty(D1, D2, torch.device("cpu")).add(*tokens).bases(0.1)


def svd_preconditioner(factors, r, form=CurvatureForm.TAIL_CORRECTED):
    state = CurvatureState.empty(random_basis(D1 * D2, D1 * D2, 0)).add(factors)
    return Preconditioner.from_spectrum(state.spectrum(r), DampingRule.TRACE, 0.5, form)


@pytest.mark.parametrize("codec", FactorCodec)
def test_rounding_of_codes_between_components_is_left_out(gradients, codec):
    encoded = decode(encode(low_rank_factors(gradients, RANK), codec), codec, D1, D2)
    expected = (encoded.u.double().square().sum(1) * encoded.v.double().square().sum(1)).sum(1)
    torch.testing.assert_close(squared_sizes({"a": encoded}, {"a": 1.0}).double(), expected, rtol=1e-5, atol=0.0)


def test_a_size_is_the_weighted_norm_of_all_layers_in_fp64(gradients):
    factors = {"a": low_rank_factors(gradients, 2), "b": low_rank_factors(gradients.mT.contiguous(), 3)}
    weights = {"a": 0.3, "b": 7.0}
    dense = {layer: (one.u.double() @ one.v.double().mT).flatten(1) for layer, one in factors.items()}
    expected = sum(weights[layer] * dense[layer].square().sum(1) for layer in factors)
    torch.testing.assert_close(squared_sizes(factors, weights).double(), expected, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("rows", [3, 200])
def test_signs_as_they_are_stored_give_the_scores_and_sizes_of_decoded_ones(rows):
    u, v = torch.randn(rows, 12, 4), torch.randn(rows, 20, 4)
    packed = encode(GradientFactors(u, v), FactorCodec.SIGN)
    decoded = {"layer": decode(packed, FactorCodec.SIGN, 12, 20)}
    stored = {"layer": scored_form(packed, FactorCodec.SIGN, 12, 20)}
    queries, weights = {"layer": torch.randn(2, 240)}, {"layer": 0.3}
    one, other = (ScoredBlock.of(queries, factors, weights) for factors in (decoded, stored))
    torch.testing.assert_close(other.squares, one.squares)
    torch.testing.assert_close(other.scores, one.scores)
    torch.testing.assert_close(other.relative, one.relative)


@pytest.mark.parametrize("form", CurvatureForm)
@pytest.mark.parametrize("r", [0, 4, D1 * D2])
def test_with_eigenpairs_the_weight_is_that_of_dense_matrices(gradients, form, r):
    ready = svd_preconditioner(low_rank_factors(gradients, RANK), r, form)
    v, w, d = ready.vectors.double(), ready.eigenvalues.double(), D1 * D2
    rest = torch.eye(d, dtype=torch.float64) - v @ v.mT
    h = v @ torch.diag(w) @ v.mT + ready.tail * rest
    floor = ready.damping + (ready.tail if form is CurvatureForm.TAIL_CORRECTED else 0.0)
    inverse = v @ torch.diag(1 / (w + ready.damping)) @ v.mT + rest / floor
    assert ready.norm_weight == pytest.approx(float((inverse @ h).trace() / h.trace()), rel=1e-5)


@pytest.mark.parametrize("curvature", [EkfacCurvature, KfacCurvature])
def test_in_kronecker_bases_the_weight_is_that_of_dense_matrices(gradients, bases, curvature):
    fitted = curvature(bases, FisherDiagonal.of(bases.rotate(gradients)), 0.2)
    values, scale = fitted.eigenvalues.double().flatten(), bases.scale.double().flatten()
    stored = torch.diag(values * scale.square())
    inverse = torch.diag(1 / ((values + 0.2 * values.mean()) * scale.square()))
    expected = float((inverse @ stored).trace() / stored.trace())
    assert fitted.preconditioner().norm_weight == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("curvature", ["svd", "ekfac"])
def test_over_the_training_examples_the_mean_is_that_of_their_influence_on_themselves(gradients, bases, curvature):
    if curvature == "svd":
        factors = low_rank_factors(gradients, RANK)
        ready = svd_preconditioner(factors, D1 * D2)
    else:
        rotated = bases.rotate(gradients)
        factors = low_rank_factors(rotated * bases.scale, RANK)
        ready = EkfacCurvature(bases, FisherDiagonal.of(rotated), 0.2).preconditioner()
    sizes = squared_sizes({"layer": factors}, {"layer": ready.norm_weight})
    expected = self_influence(factors, ready).mean()
    assert float(sizes.double().mean()) == pytest.approx(float(expected), rel=1e-3)


def test_scaling_a_layer_s_projection_changes_no_size(gradients):
    sizes = []
    for scale in (1.0, 30.0):
        factors = low_rank_factors(scale * gradients, RANK)
        sizes.append(squared_sizes({"layer": factors}, {"layer": svd_preconditioner(factors, 8).norm_weight}))
    torch.testing.assert_close(sizes[1], sizes[0], rtol=1e-3, atol=0.0)


def test_a_layer_without_training_gradients_adds_nothing(bases):
    nothing = GradientFactors(torch.zeros(3, D1, 1), torch.zeros(3, D2, 1))
    silent = [svd_preconditioner(nothing, 2), EkfacCurvature.empty(bases, 0.2).preconditioner()]
    assert [ready.norm_weight for ready in silent] == [0.0, 0.0]


def test_both_rankings_are_those_of_all_scores_however_the_stream_is_cut():
    generator = torch.Generator().manual_seed(3)
    scores, squares = torch.randn(4, 50, generator=generator), torch.rand(50, generator=generator) ** 4
    squares[7] = 0.0
    relative = torch.where(squares > 0, scores.double() / squares.double().sqrt(), 0.0)
    for cuts in ([50], [1, 20, 29], [13, 37]):
        rankings, first = Rankings.empty(4, 6, 50), 0
        for count in cuts:
            at = slice(first, first + count)
            rankings = rankings.update(ScoredBlock(scores[:, at], squares[at]), first)
            first += count
        order = relative.argsort(dim=1, descending=True)
        assert rankings.relative.highest_positions.tolist() == order[:, :6].tolist()
        assert rankings.relative.lowest_positions.tolist() == order.flip(1)[:, :6].tolist()
        assert rankings.plain.highest_positions.tolist() == scores.argsort(dim=1, descending=True)[:, :6].tolist()
        torch.testing.assert_close(rankings.squares, squares)
        assert rankings.moments.count == 50
