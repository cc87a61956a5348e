"""One-bit codes along axes of half-whitened gradients, against dense matrices and hand-computed values."""

import pytest
import torch

from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal, KroneckerPreconditioner
from lorif_assets.mathematics.curvature.kfac_bases import KfacCovariances
from lorif_assets.mathematics.evaluation.one_bit_codes import (
    PrincipalAxes,
    axes_by_layer,
    code_bytes,
    code_scores,
    energy,
    half_whitened,
    halves,
    one_bit,
    random_coordinates,
)

N, D1, D2 = 30, 6, 5


@pytest.fixture
def gradients():
    return torch.randn(N, D1, D2, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def preconditioner(gradients):
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(80, D1, generator=generator), torch.randn(80, D2, generator=generator)
    bases = KfacCovariances.empty(D1, D2, torch.device("cpu")).add(*tokens).bases(0.1)
    return KroneckerPreconditioner(bases, FisherDiagonal.of(bases.rotate(gradients)).eigenvalues, 0.1)


def test_dot_products_of_half_whitened_gradients_are_ekfacs_scores(gradients, preconditioner):
    z = half_whitened(preconditioner, gradients)
    expected = preconditioner.inverse(gradients.flatten(1)) @ gradients.flatten(1).mT
    torch.testing.assert_close(z @ z.mT, expected, rtol=1e-4, atol=1e-4)


def test_the_energy_of_a_layer_is_the_mean_squared_norm_of_the_examples_it_was_fitted_to(gradients, preconditioner):
    z = half_whitened(preconditioner, gradients)
    assert energy(preconditioner) == pytest.approx(float(z.square().sum(1).mean()), rel=1e-5)


def test_a_layer_without_gradients_is_coded_as_nothing(preconditioner):
    empty = KroneckerPreconditioner(preconditioner.bases, torch.zeros(D1, D2, dtype=torch.float64), 0.1)
    assert energy(empty) == 0
    z = half_whitened(empty, torch.ones(3, D1, D2))
    assert not z.any()
    axes = PrincipalAxes.fit(z @ z.mT, 8)
    assert code_scores(axes.coordinates(z @ z.mT), axes.coordinates(z @ z.mT)).tolist() == [[0.0] * 3] * 3


def test_axes_are_shared_out_by_energy_and_cost_a_bit_each_and_a_scale_per_layer():
    # 2 scales take 4 of 14 bytes; the 10 others go to the layers as 4 : 1.
    axes = axes_by_layer({"a": 40.0, "b": 10.0}, {"a": 1_000, "b": 1_000}, 14)
    assert axes == {"a": 64, "b": 16}
    assert code_bytes(axes) == 14


def test_a_few_bytes_go_to_the_layer_of_more_energy_one_by_one():
    # Of 8 bytes two scales take 4; 2 bytes of b for 10 of energy would be more than 3 of a for 50.
    assert axes_by_layer({"a": 50.0, "b": 10.0}, {"a": 1_000, "b": 1_000}, 8) == {"a": 24, "b": 8}


def test_what_a_layer_cannot_take_others_get_and_no_byte_is_spent_beyond_the_budget():
    assert axes_by_layer({"a": 40.0, "b": 10.0}, {"a": 16, "b": 1_000}, 14) == {"a": 16, "b": 64}
    assert axes_by_layer({"a": 40.0, "b": 10.0}, {"a": 16, "b": 16}, 1_000) == {"a": 16, "b": 16}
    narrow = axes_by_layer({"a": 1.0}, {"a": 5}, 100)
    assert (narrow, code_bytes(narrow)) == ({"a": 5}, 3)


def test_a_budget_below_one_byte_of_every_layer_is_refused():
    with pytest.raises(ValueError, match=r"5 bytes per example are too few: .* take 6"):
        axes_by_layer({"a": 1.0, "b": 1.0}, {"a": 8, "b": 8}, 5)


def test_principal_axes_are_the_leading_right_singular_vectors(gradients):
    rows = gradients.flatten(1)
    axes = PrincipalAxes.fit(rows @ rows.mT, 4)
    vectors = rows.mT @ axes.weights
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(4), rtol=0, atol=1e-4)
    expected = torch.linalg.svd(rows).Vh[:4].mT
    torch.testing.assert_close((vectors * expected).sum(0).abs(), torch.ones(4), rtol=0, atol=1e-3)
    torch.testing.assert_close(axes.coordinates(rows @ rows.mT), rows @ vectors, rtol=1e-3, atol=1e-4)


def test_axes_are_at_most_as_many_as_the_rows_span(gradients):
    few = gradients.flatten(1)[:3]
    assert PrincipalAxes.fit(few @ few.mT, 8).weights.shape == (3, 3)


def test_rows_that_all_point_one_way_have_one_axis(gradients):
    (row,) = gradients.flatten(1)[:1]
    for rows in (row[None], torch.stack([row, -2 * row, 0.5 * row])):
        axes = PrincipalAxes.fit(rows @ rows.mT, 8)
        assert axes.weights.shape == (len(rows), 1)
        vector = (rows.mT @ axes.weights)[:, 0]
        torch.testing.assert_close(vector.abs(), (row / row.norm()).abs(), rtol=1e-4, atol=1e-5)


def test_random_axes_follow_from_seed_and_layer_and_keep_dot_products_on_average():
    rows = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    found = random_coordinates(rows, 20_000, "a", 0)
    assert torch.equal(found, random_coordinates(rows, 20_000, "a", 0))
    assert not torch.equal(found, random_coordinates(rows, 20_000, "b", 0))
    torch.testing.assert_close(found @ found.mT, rows @ rows.mT, rtol=0.05, atol=2.0)


def test_one_bit_keeps_signs_and_the_mean_absolute_value_in_fp16():
    assert one_bit(torch.tensor([[1.0, -3.0, 2.0], [0.0, -0.3, 0.0]])).tolist() == [
        [2.0, -2.0, 2.0],
        [pytest.approx(0.1, rel=1e-3), pytest.approx(-0.1, rel=1e-3), pytest.approx(0.1, rel=1e-3)],
    ]


def test_only_the_examples_are_kept_in_one_bit():
    queries, examples = torch.tensor([[0.5, 4.0]]), torch.tensor([[1.0, -3.0]])
    # 0.5 * 2 - 4 * 2
    assert code_scores(queries, examples).tolist() == [[-7.0]]


def test_halves_are_disjoint_and_hold_every_position():
    first, second = halves(7, 0)
    assert (len(first), len(second)) == (3, 4)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(7))
    assert first.tolist() != halves(7, 1)[0].tolist()
