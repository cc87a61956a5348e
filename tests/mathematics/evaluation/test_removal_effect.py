"""What retraining without examples says, against hand-computed values."""

import numpy as np
import pytest

from lorif_assets.mathematics.evaluation.removal_effect import (
    query_loss_differences,
    runs_of_ranks,
    sorted_datamodeling_scores,
    sorted_subset_members,
)


def test_a_querys_loss_difference_is_the_mean_over_seeds_of_what_its_loss_rose_by():
    without, whole = np.array([[3.0, 5.0], [4.0, 1.0]]), np.array([[2.0, 5.5], [2.0, 1.0]])
    # (1 + 2) / 2 and (-0.5 + 0) / 2
    assert query_loss_differences(without, whole).tolist() == [1.5, -0.25]


@pytest.mark.parametrize(
    ("n_examples", "count", "runs"),
    [(6, 3, [(0, 2), (2, 4), (4, 6)]), (7, 3, [(0, 3), (3, 5), (5, 7)]), (2, 5, [(0, 1), (1, 2)])],
)
def test_runs_hold_every_rank_once_and_the_first_ones_are_the_longer(n_examples, count, runs):
    assert runs_of_ranks(n_examples, count) == runs


def test_a_sorted_subset_lacks_a_run_of_consecutive_ranks():
    # Ranked: examples 2, 0, 3, 1.
    members = sorted_subset_members(np.array([2, 0, 3, 1]), [(0, 2), (2, 4)])
    assert members.tolist() == [[False, True, False, True], [True, False, True, False]]


def test_the_lds_on_sorted_subsets_is_the_rank_correlation_of_what_is_left_with_the_loss():
    scores = np.array([[3.0, 2.0, 1.0, -1.0], [3.0, 2.0, 1.0, -1.0]])
    members = sorted_subset_members(np.arange(4), [(0, 1), (1, 2), (2, 3), (3, 4)])
    # What is left adds up to 2, 3, 4, 6. The first query's loss falls with it throughout; of the second's, the ranks of
    # -loss are 1, 3, 2, 4: Spearman's correlation 1 - 6 * (1 + 1) / (4 * 15).
    losses = np.array([[9.0, 8.0, 7.0, 6.0], [9.0, 7.0, 8.0, 6.0]])
    np.testing.assert_allclose(sorted_datamodeling_scores(scores, members, losses), [1.0, 0.8])
