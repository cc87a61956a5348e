import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr

from lorif_assets.mathematics.evaluation.datamodeling import (
    Resamples,
    bootstrap_means,
    linear_datamodeling_scores,
    reliability,
    subset_sums,
)
from lorif_assets.mathematics.evaluation.intervals import estimate
from lorif_assets.mathematics.scores.rank_correlation import rank_correlations

N, M, Q = 200, 60, 12


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def masks(rng, n=N, m=M):
    return np.stack([rng.permutation(n) < n // 2 for _ in range(m)])


def linear_world(rng, noise):
    """Effects of each example on each query, subsets, and losses that fall by the sum of effects, plus noise."""
    effects, members = rng.normal(size=(Q, N)), masks(rng)
    sums = subset_sums(effects, members)
    return effects, members, -sums + noise * sums.std(axis=1, keepdims=True) * rng.normal(size=sums.shape)


def test_exact_effects_of_a_linear_model_score_one(rng):
    effects, members, losses = linear_world(rng, noise=0.0)
    result = linear_datamodeling_scores({"exact": effects}, members, losses, "exact", draws=100)
    assert result.mean["exact"].value == pytest.approx(1.0)
    assert result.mean["exact"].low == pytest.approx(1.0)


def test_exact_effects_score_what_the_noise_of_training_leaves(rng):
    effects, members, losses = linear_world(rng, noise=1.0)
    result = linear_datamodeling_scores({"exact": effects}, members, losses, "exact", draws=200)
    # Spearman's correlation of a sum with itself plus as much Gaussian noise: 6/pi asin(rho/2), rho = 1/sqrt(2).
    expected = 6 / np.pi * np.arcsin(0.5 / np.sqrt(2))
    assert result.mean["exact"].value == pytest.approx(expected, abs=0.06)
    assert result.mean["exact"].low < expected < result.mean["exact"].high


def test_random_scores_score_nothing(rng):
    effects, members, losses = linear_world(rng, noise=0.0)
    random = rng.normal(size=effects.shape)
    result = linear_datamodeling_scores({"random": random, "exact": effects}, members, losses, "exact", draws=200)
    assert abs(result.mean["random"].value) < 0.12
    assert result.mean["random"].low < 0 < result.mean["random"].high
    assert result.differences["random"].low > 0.8


def test_two_equal_methods_differ_by_nothing_and_without_an_interval(rng):
    effects, members, losses = linear_world(rng, noise=1.0)
    result = linear_datamodeling_scores({"a": effects, "b": 3 * effects}, members, losses, "a", draws=100)
    assert result.differences == {"b": estimate(0.0, np.zeros(100))}


def test_opposite_scores_give_the_opposite(rng):
    effects, members, losses = linear_world(rng, noise=0.5)
    result = linear_datamodeling_scores({"a": effects, "b": -effects}, members, losses, "a", draws=100)
    assert result.mean["b"].value == pytest.approx(-result.mean["a"].value)


@given(
    arrays(np.float64, (3, 9), elements=st.integers(-4, 4).map(float)),
    arrays(np.float64, (3, 9), elements=st.integers(-4, 4).map(float)),
)
def test_rank_correlations_are_scipys_also_with_ties(left, right):
    for row, value in enumerate(rank_correlations(left, right)):
        if np.ptp(left[row]) == 0 or np.ptp(right[row]) == 0:
            assert value == 0.0
        else:
            assert value == pytest.approx(spearmanr(left[row], right[row]).statistic)


def test_the_interval_covers_the_truth_about_as_often_as_it_says(rng):
    """Queries whose correlation over all subsets varies around 0.4: of 95 % intervals, about 95 % hold the mean."""
    covered, trials, q, m = 0, 150, 15, 40
    for _ in range(trials):
        rho = np.clip(rng.normal(0.4, 0.15, size=(q, 1)), -0.95, 0.95)
        predicted = rng.normal(size=(q, m))
        losses = -(rho * predicted + np.sqrt(1 - rho**2) * rng.normal(size=(q, m)))
        means = bootstrap_means(predicted, losses, Resamples.draw(m, q, 150, seed=int(rng.integers(1 << 30))))
        interval = estimate(float(rank_correlations(predicted, -losses).mean()), means)
        truth = float(np.mean(6 / np.pi * np.arcsin(np.clip(rng.normal(0.4, 0.15, 4000), -0.95, 0.95) / 2)))
        covered += interval.low <= truth <= interval.high
    # It also counts the noise of the drawn queries' correlations, so it is on the wide side.
    assert 0.9 <= covered / trials <= 1.0


def test_reliability_tells_what_seeds_share(rng):
    signal = rng.normal(size=(Q, 400))
    one = reliability([signal + rng.normal(size=signal.shape) for _ in range(2)])
    assert one.one_seed == pytest.approx(6 / np.pi * np.arcsin(0.25), abs=0.04)
    assert one.all_seeds == pytest.approx(2 * one.one_seed / (1 + one.one_seed))
    assert one.ceiling == pytest.approx(np.sqrt(one.all_seeds))


def test_one_seed_cannot_tell_how_reliable_it_is(rng):
    assert reliability([rng.normal(size=(Q, M))]) is None


def test_seeds_that_contradict_each_other_leave_nothing_within_reach(rng):
    signal = rng.normal(size=(Q, M))
    assert reliability([signal, -signal]).ceiling == 0.0
