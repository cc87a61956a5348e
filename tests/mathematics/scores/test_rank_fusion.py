"""Reciprocal rank fusion: a ranking from several, of which only the orders count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lorif_assets.mathematics.scores.rank_fusion import reciprocal_rank_fusion

SCORES = arrays(np.float64, (2, 6), elements=st.integers(-3, 3).map(float))


def test_an_example_has_the_sum_of_its_reciprocal_ranks():
    fused = reciprocal_rank_fusion([np.array([[3.0, 2.0, 1.0]]), np.array([[0.0, 5.0, 7.0]])])
    assert fused[0].tolist() == pytest.approx([1 / 61 + 1 / 63, 1 / 62 + 1 / 62, 1 / 63 + 1 / 61])


def test_examples_that_a_ranking_cannot_tell_apart_share_the_mean_of_their_ranks():
    fused = reciprocal_rank_fusion([np.array([[1.0, 0.0, 0.0, 0.0]])])
    assert fused[0].tolist() == pytest.approx([1 / 61, 1 / 63, 1 / 63, 1 / 63])


@given(SCORES, SCORES)
def test_only_orders_count(one, other):
    fused = reciprocal_rank_fusion([one, other])
    np.testing.assert_allclose(reciprocal_rank_fusion([np.exp(one), 5 * other - 1]), fused)
    np.testing.assert_allclose(reciprocal_rank_fusion([other, one]), fused)


@given(SCORES)
def test_one_ranking_alone_keeps_its_order(scores):
    fused = reciprocal_rank_fusion([scores])
    assert (np.sign(fused[:, :, None] - fused[:, None]) == np.sign(scores[:, :, None] - scores[:, None])).all()
