"""The damped inverse: the formulas of the paper and of the tail correction, and where they meet the dense inverse."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import Tensor

from lorif_assets.mathematics.curvature.svd import CurvatureState, Spectrum, random_basis
from lorif_assets.mathematics.curvature.svd_preconditioner import (
    LEADING_EXTRA,
    CurvatureForm,
    DampingRule,
    Preconditioner,
    damping,
)
from lorif_assets.mathematics.factors.low_rank import low_rank_factors
from tests.mathematics.references import dense_inverse, relative_error

D1, D2 = 6, 8
D = D1 * D2


def decaying(n: int, seed: int, power: float = 0.7) -> Tensor:
    """Gradients whose covariance has eigenvalues j^(-2 power) along random directions."""
    directions = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(99))).Q
    coordinates = torch.randn(n, D, generator=torch.Generator().manual_seed(seed))
    return coordinates * torch.arange(1, D + 1).pow(-power) @ directions.T


TRAIN, QUERIES = decaying(300, 0), decaying(20, 1)


def spectrum_of(train: Tensor, r: int, k: int = D) -> Spectrum:
    """Of the exact state, unless the basis is narrower."""
    factors = low_rank_factors(train.unflatten(1, (D1, D2)), D1)
    return CurvatureState.empty(random_basis(D, k, 0)).add(factors).spectrum(r, LEADING_EXTRA)


def literal_inverse(spectrum: Spectrum, r: int, lam: float, form: CurvatureForm) -> Tensor:
    """H^-1 as the method writes it, in FP64: [D, D]."""
    identity, v = torch.eye(D, dtype=torch.float64), spectrum.vectors.double()
    w = spectrum.eigenvalues[:r]
    if form is CurvatureForm.TRUNCATED:
        return (identity - v @ torch.diag(w / (w + lam)) @ v.T) / lam
    tau = (spectrum.trace - float(w.sum())) / (D - r) if r < D else 0.0
    return (identity - v @ v.T) / (lam + tau) + v @ torch.diag(1 / (w + lam)) @ v.T


# --- Damping --------------------------------------------------------------------------------------------------------

# r = 2 of D = 4, the mean eigenvalue 3, the mean of the leading ones that are known 4.
HAND = Spectrum(torch.tensor([6.0, 4.0, 2.0], dtype=torch.float64), torch.eye(4)[:, :2], 12.0)


@pytest.mark.parametrize(
    ("rule", "factor", "expected"),
    [
        (DampingRule.TRACE, 1.0, 3.0),
        (DampingRule.TRACE, 0.1, 0.3),
        (DampingRule.LEADING, 0.1, 0.4),
        (DampingRule.ABSOLUTE, 0.7, 0.7),
    ],
)
def test_damping_rules_by_hand(rule, factor, expected):
    assert damping(rule, factor, HAND) == pytest.approx(expected)
    assert Preconditioner.from_spectrum(HAND, rule, factor, CurvatureForm.TRUNCATED).damping == pytest.approx(expected)


def test_the_papers_rule_averages_the_leading_r_plus_ten_eigenvalues():
    values = torch.arange(30, 0, -1, dtype=torch.float64)
    spectrum = Spectrum(values, torch.eye(40)[:, :5], 1000.0)
    assert damping(DampingRule.LEADING, 0.1, spectrum) == pytest.approx(0.1 * float(values[:15].mean()))


def test_a_leading_rule_without_eigenvalues_gives_no_damping():
    assert damping(DampingRule.LEADING, 0.1, Spectrum(torch.empty(0), torch.empty(4, 0), 12.0)) == 0.0


def test_the_tail_is_the_mean_eigenvalue_of_what_was_cut_off():
    by_hand = Preconditioner.from_spectrum(HAND, DampingRule.TRACE, 1.0, CurvatureForm.TAIL_CORRECTED)
    assert by_hand.tail == pytest.approx((12 - 6 - 4) / 2)
    assert by_hand.eigenvalues.tolist() == [6.0, 4.0]
    assert Preconditioner(torch.eye(2), torch.tensor([2.0, 1.0]), 9.0, 1.0, CurvatureForm.TRUNCATED).tail == 0.0
    rounded_over = Preconditioner(torch.eye(3)[:, :1], torch.tensor([2.0]), 1.999, 1.0, CurvatureForm.TRUNCATED)
    assert rounded_over.tail == 0.0


def test_both_forms_by_hand():
    """Along the eigenvectors 1 / (w + lam), elsewhere 1 / lam, or 1 / (lam + tau) with tau = 1."""
    ones = torch.ones(1, 4)
    truncated = Preconditioner.from_spectrum(HAND, DampingRule.ABSOLUTE, 2.0, CurvatureForm.TRUNCATED)
    corrected = Preconditioner.from_spectrum(HAND, DampingRule.ABSOLUTE, 2.0, CurvatureForm.TAIL_CORRECTED)
    torch.testing.assert_close(truncated.apply(ones), torch.tensor([[1 / 8, 1 / 6, 1 / 2, 1 / 2]]))
    torch.testing.assert_close(corrected.apply(ones), torch.tensor([[1 / 8, 1 / 6, 1 / 3, 1 / 3]]))


# --- The inverse ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", CurvatureForm)
@pytest.mark.parametrize(
    ("rule", "factor"),
    [(DampingRule.TRACE, 1.0), (DampingRule.TRACE, 0.1), (DampingRule.LEADING, 0.1), (DampingRule.ABSOLUTE, 5.0)],
)
@pytest.mark.parametrize("n", [300, 10])
def test_at_full_rank_both_forms_are_the_dense_inverse(n, rule, factor, form):
    preconditioner = Preconditioner.from_spectrum(spectrum_of(TRAIN[:n], D), rule, factor, form)
    expected = QUERIES.double() @ dense_inverse(TRAIN[:n], preconditioner.damping)
    assert relative_error(preconditioner.apply(QUERIES), expected) < 1e-4


@pytest.mark.parametrize("form", CurvatureForm)
@pytest.mark.parametrize("r", [0, 1, 8, 32, D])
@pytest.mark.parametrize("k", [40, D])
def test_at_any_rank_both_forms_are_the_methods_formulas(k, r, form):
    spectrum = spectrum_of(TRAIN, r, k)
    preconditioner = Preconditioner.from_spectrum(spectrum, DampingRule.TRACE, 0.1, form)
    expected = QUERIES.double() @ literal_inverse(spectrum, min(r, k), preconditioner.damping, form)
    assert relative_error(preconditioner.apply(QUERIES), expected) < 1e-5


def test_rank_zero_truncated_with_unit_damping_changes_nothing():
    preconditioner = Preconditioner.from_spectrum(
        spectrum_of(TRAIN, 0, 0), DampingRule.ABSOLUTE, 1.0, CurvatureForm.TRUNCATED
    )
    assert torch.equal(preconditioner.apply(QUERIES), QUERIES)


def errors_by_rank(form: CurvatureForm, ranks: tuple[int, ...], factor: float) -> list[tuple[float, float]]:
    """Relative error, and Spearman correlation, of the scores against those of the dense inverse."""
    found = []
    for r in ranks:
        preconditioner = Preconditioner.from_spectrum(spectrum_of(TRAIN, r), DampingRule.TRACE, factor, form)
        scores = preconditioner.apply(QUERIES) @ TRAIN.T
        exact = QUERIES.double() @ dense_inverse(TRAIN, preconditioner.damping) @ TRAIN.double().T
        ranked = [spearmanr(a, b).statistic for a, b in zip(scores, exact, strict=True)]
        found.append((relative_error(scores, exact), sum(ranked) / len(ranked)))
    return found


@pytest.mark.parametrize("factor", [0.1, 1.0])
def test_tail_corrected_scores_converge_to_the_dense_ones_as_the_rank_grows(factor):
    ranks = (2, 8, 16, 32, 40, D)
    found = errors_by_rank(CurvatureForm.TAIL_CORRECTED, ranks, factor)
    errors, correlations = zip(*found, strict=True)
    assert all(later < earlier for earlier, later in pairwise(errors))
    assert all(later > earlier for earlier, later in pairwise(correlations))
    assert errors[3] < 0.2
    assert correlations[3] > 0.97
    assert errors[-1] < 1e-3
    assert correlations[-1] > 0.9999


def test_at_low_damping_truncation_errs_several_times_more_until_nothing_is_cut_off():
    """It divides by lam where the tail's mean eigenvalue is larger: the trap that the damping check warns of."""
    truncated, corrected = (errors_by_rank(form, (2, 8, 16, 32, 40, D), 0.1) for form in reversed(CurvatureForm))
    for (error, correlation), (smaller, higher) in zip(truncated[:-1], corrected[:-1], strict=True):
        assert error > 4 * smaller
        assert correlation < higher
    assert truncated[-1][0] < 1e-3


@settings(deadline=None, max_examples=30)
@given(
    n=st.integers(1, 20),
    r=st.integers(0, D),
    k=st.integers(1, D),
    form=st.sampled_from(CurvatureForm),
    rule=st.sampled_from(DampingRule),
    factor=st.sampled_from([0.1, 1.0, 10.0]),
)
def test_the_inverse_is_symmetric_and_positive_definite(n, r, k, form, rule, factor):
    preconditioner = Preconditioner.from_spectrum(spectrum_of(TRAIN[:n], r, k), rule, factor, form)
    inverse = preconditioner.apply(torch.eye(D, dtype=torch.float64))
    torch.testing.assert_close(inverse, inverse.T, rtol=0, atol=1e-5 / preconditioner.damping)
    # No direction is damped by more than the whole trace.
    floor = 0.9 / (preconditioner.trace + preconditioner.damping)
    assert float(torch.linalg.eigvalsh((inverse + inverse.T) / 2).min()) > floor


@pytest.mark.parametrize("form", CurvatureForm)
def test_the_inverse_is_linear_in_the_gradients_and_keeps_their_type(form):
    preconditioner = Preconditioner.from_spectrum(spectrum_of(TRAIN, 8), DampingRule.TRACE, 1.0, form)
    a, b = QUERIES[:1], QUERIES[1:2]
    torch.testing.assert_close(
        preconditioner.apply(a - 2 * b), preconditioner.apply(a) - 2 * preconditioner.apply(b), rtol=1e-4, atol=1e-6
    )
    assert preconditioner.apply(a).dtype == torch.float32
    assert preconditioner.apply(a.double()).dtype == torch.float64
    assert preconditioner.apply(torch.empty(0, D)).shape == (0, D)


@pytest.mark.parametrize("form", CurvatureForm)
@pytest.mark.parametrize("rule", DampingRule)
def test_a_layer_without_any_training_gradient_gives_zeros(rule, form):
    spectrum = spectrum_of(torch.zeros(5, D), 8)
    assert not Preconditioner.from_spectrum(spectrum, rule, 1.0, form).apply(QUERIES).any()


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan")])
def test_a_damping_that_is_not_positive_is_refused(factor):
    preconditioner = Preconditioner.from_spectrum(
        spectrum_of(TRAIN, 8), DampingRule.ABSOLUTE, factor, CurvatureForm.TRUNCATED
    )
    with pytest.raises(ValueError, match=f"must be positive, found {factor}"):
        preconditioner.apply(QUERIES)
