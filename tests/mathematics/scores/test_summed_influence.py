"""Influence on several queries together."""

import numpy as np
import pytest

from lorif_assets.mathematics.scores.summed_influence import summed_influence


def test_queries_count_alike_whatever_the_size_of_their_scores():
    small = np.array([1.0, 0.0, -1.0])
    scores = np.stack([small, 1_000 * small[::-1]])
    assert summed_influence(scores) == pytest.approx([0.0, 0.0, 0.0])


def test_weights_multiply_a_query_and_turn_it_round_where_they_are_negative():
    scores = np.array([[2.0, 0.0, -2.0], [0.0, 3.0, -3.0]])
    first, second = (row / row.std() for row in scores)
    assert summed_influence(scores, np.array([3.0, -1.0])) == pytest.approx(3 * first - second)


def test_a_query_without_any_difference_between_examples_adds_none():
    found = summed_influence(np.array([[4.0, 4.0], [1.0, 2.0]]))
    assert found[1] - found[0] == pytest.approx(2.0)
