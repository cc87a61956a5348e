import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from lorif_assets.mathematics.evaluation.retrieval import source_retrieval


def test_a_perfect_ranking_finds_all():
    found = source_retrieval(np.array([3.0, 2.0, 1.0, 0.0]), np.array([True, True, False, False]))
    assert (found.recall_at_10, found.reciprocal_rank, found.roc_auc) == (1.0, 1.0, 1.0)


def test_a_ranking_upside_down_finds_nothing():
    scores = np.arange(30.0)
    found = source_retrieval(scores, scores == 0)
    assert (found.recall_at_10, found.reciprocal_rank, found.roc_auc) == (0.0, 1 / 30, 0.0)


def test_ten_places_are_full_recall_of_more_than_ten_sources():
    scores = -np.arange(40.0)
    assert source_retrieval(scores, np.arange(40) < 20).recall_at_10 == 1.0


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_the_areas_are_those_of_scikit_learn_also_with_ties(rows):
    scores, mask = np.array([s for s, _ in rows], dtype=float), np.array([m for _, m in rows])
    if 0 < mask.sum() < len(mask):
        found = source_retrieval(scores, mask)
        assert found.roc_auc == pytest.approx(roc_auc_score(mask, scores))
        assert found.average_precision == pytest.approx(average_precision_score(mask, scores))


def test_the_average_precision_is_the_mean_of_the_precision_at_each_source():
    # Sources in the first and the fourth place: (1 / 1 + 2 / 4) / 2.
    found = source_retrieval(np.array([5.0, 4.0, 3.0, 2.0, 1.0]), np.array([True, False, False, True, False]))
    assert found.average_precision == 0.75


@pytest.mark.parametrize("mask", [[False, False], [True, True]])
def test_no_source_or_nothing_else_cannot_be_ranked(mask):
    with pytest.raises(ValueError, match="needs sources and other examples"):
        source_retrieval(np.zeros(2), np.array(mask))
