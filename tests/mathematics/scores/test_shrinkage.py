"""Posterior means of scores under noise: exact values, and what holds for all scores."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.integrate import quad

from lorif_assets.mathematics.scores.shrinkage import (
    MOST_NOISE,
    laplace_posterior_mean,
    noise_share,
    root_mean_square,
    shrunk,
)

SCORES = arrays.arrays(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(2, 30)),
    elements=st.floats(-1e6, 1e6, allow_nan=False, width=32),
)
SHARES = st.floats(0.01, MOST_NOISE)


def by_quadrature(observed: float, noise: float, scale: float) -> float:
    def density(t: float) -> float:
        return float(np.exp(-abs(t) / scale - (observed - t) ** 2 / (2 * noise**2) + abs(observed) / scale))

    around = (observed - 12 * noise, observed + 12 * noise)
    mass = quad(density, *around, points=[0, observed], limit=500)[0]
    return float(quad(lambda t: t * density(t), *around, points=[0, observed], limit=500)[0] / mass)


@pytest.mark.parametrize(("noise", "scale"), [(0.7, 0.5), (0.3, 0.7), (1.0, 0.2)])
@pytest.mark.parametrize("observed", [0.05, 0.4, 1.0, 2.5, -0.4, -3.0])
def test_the_mean_under_laplace_s_law_is_that_of_the_integral(observed, noise, scale):
    found = laplace_posterior_mean(np.array([observed]), noise, scale)
    assert found == pytest.approx(by_quadrature(observed, noise, scale), rel=1e-6)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_the_variances_of_both_laws_add_up_to_the_mean_square(share):
    """Laplace's law has twice the square of its scale."""
    size, score = 3.0, 2.4
    found = shrunk(np.array([[score]]), share, np.array([[size]]))
    expected = size * by_quadrature(score / size, share**0.5, ((1 - share) / 2) ** 0.5)
    assert found[0, 0] == pytest.approx(expected, rel=1e-6)


def test_far_from_zero_the_mean_is_the_score_less_a_constant():
    found = laplace_posterior_mean(np.array([1e3, -1e3]), 0.5, 0.4)
    assert found == pytest.approx([1e3 - 0.625, -1e3 + 0.625], rel=1e-12)


def test_near_zero_scores_are_shrunk_more_than_far_from_it():
    scores = np.array([[0.1, 0.5, 1.0, 2.0, 8.0]])
    kept = shrunk(scores, 0.5, np.ones((1, 1))) / scores
    assert (np.diff(kept) > 0).all()
    assert kept[0, 0] < 0.4 < 0.8 < kept[0, -1]


@given(SCORES, SHARES)
@example(np.array([[8.7799e4, 4.38641692e-11, 0.0, 0.0]]), 0.65625)
@example(np.array([[4.38641692e-11, 2.15528e5, 0.0]]), 0.5)
def test_rankings_and_signs_never_change(scores, share):
    found = shrunk(scores, share)
    assert np.isfinite(found).all()
    assert (np.sign(found) * np.sign(scores) >= 0).all()
    assert (np.abs(found) <= np.abs(scores) * (1 + 1e-9)).all()
    for before, after in zip(scores, found, strict=True):
        order = np.argsort(before, kind="stable")
        # Scores that only rounding tells apart may come out equal.
        assert (np.diff(after[order]) >= -1e-9 * np.abs(before).max()).all()


@given(SCORES, SHARES, st.floats(1e-3, 1e3))
def test_scores_of_another_unit_are_shrunk_alike(scores, share, unit):
    largest = np.abs(scores).max() * unit
    np.testing.assert_allclose(
        shrunk(scores * unit, share), shrunk(scores, share) * unit, rtol=1e-6, atol=1e-9 * largest
    )


@given(SCORES)
def test_without_noise_the_scores_come_back_and_with_little_nearly(scores):
    assert (shrunk(scores, 0.0) == scores).all()
    np.testing.assert_allclose(shrunk(scores, 1e-10), scores, rtol=1e-4, atol=1e-4 * np.abs(scores).max())


def test_a_query_is_shrunk_by_its_own_size_or_by_the_one_that_is_given():
    scores = np.array([[1.0, -2.0, 3.0], [100.0, -200.0, 300.0]])
    found = shrunk(scores, 0.4)
    np.testing.assert_allclose(found[1], 100 * found[0])
    np.testing.assert_allclose(shrunk(scores[:, :1], 0.4, root_mean_square(scores)), found[:, :1])


@pytest.mark.parametrize(
    ("scores", "size"), [([3.0], 3.0), ([3.0, np.nan], 3.0), ([3.0, -4.0], 12.5**0.5), ([np.nan], 0.0)]
)
def test_the_size_of_a_query_is_the_root_of_its_mean_square_score(scores, size):
    assert root_mean_square(np.array([scores])).item() == pytest.approx(size)


def test_scores_that_are_not_finite_do_not_spoil_the_others():
    found = shrunk(np.array([[1.0, np.nan, 3.0]]), 0.4)
    np.testing.assert_allclose(found[:, [0, 2]], shrunk(np.array([[1.0, 3.0]]), 0.4))


def test_the_share_of_noise_is_what_was_added():
    rng = np.random.default_rng(0)
    exact = rng.laplace(size=(40, 2_000)) * rng.uniform(0.1, 10, size=(40, 1))
    size = exact.std(axis=1, keepdims=True)
    stored = 0.3 * (exact + rng.normal(size=exact.shape) * size)
    assert noise_share(stored, exact) == pytest.approx(0.5, abs=0.02)
    assert noise_share(2 * exact, exact) == pytest.approx(0.0, abs=1e-12)
    assert noise_share(-exact, exact) == MOST_NOISE
    # Of small scores as of large ones; a query of which all scores are zero does not count.
    silent = np.zeros((1, 2_000))
    small = noise_share(np.vstack([1e-6 * stored, silent]), np.vstack([1e-6 * exact, silent]))
    assert small == pytest.approx(noise_share(stored, exact))


def test_posterior_means_are_nearer_to_the_influence_than_scores_and_than_any_multiple_of_them():
    rng = np.random.default_rng(1)
    exact = rng.laplace(size=(1, 20_000)) / np.sqrt(2)
    stored = exact + rng.normal(size=exact.shape)
    share = noise_share(stored[:, :500], exact[:, :500])

    def error(scores):
        return np.square(scores - exact).mean()

    best_multiple = (stored @ exact.T / (stored @ stored.T)).item() * stored
    assert error(shrunk(stored, share)) < 0.97 * error(best_multiple) < error(stored)


def test_scores_that_are_all_zero_have_no_noise():
    assert noise_share(np.zeros((2, 3)), np.ones((2, 3))) == 0
