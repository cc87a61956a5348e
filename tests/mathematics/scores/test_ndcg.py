"""NDCG: 1 for the true order, less where what matters stands lower, nothing for opponents."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lorif_assets.mathematics.scores.ndcg import ndcg

VALUES = arrays(np.float64, (2, 7), elements=st.integers(-4, 4).map(float))


def test_a_list_is_worth_its_discounted_gains_over_those_of_the_best_list() -> None:
    found = ndcg(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([[5.0, 2.0, -9.0]]), k=2)
    achieved, best = 2.0 / np.log2(2) + 0.0 / np.log2(3), 5.0 / np.log2(2) + 2.0 / np.log2(3)
    assert found.tolist() == pytest.approx([achieved / best])


def test_of_equal_predictions_each_has_their_mean_gain() -> None:
    found = ndcg(torch.zeros(1, 4), torch.tensor([[4.0, 0.0, 0.0, 0.0]]), k=1)
    assert found.tolist() == pytest.approx([0.25])


def test_it_is_the_measure_of_scikit_learn() -> None:
    measure = pytest.importorskip("sklearn.metrics").ndcg_score
    generator = torch.Generator().manual_seed(0)
    predictions, truth = (torch.randn(4, 50, generator=generator).round(decimals=1) for _ in range(2))
    expected = [measure([t.clamp(min=0).tolist()], [p.tolist()], k=20) for p, t in zip(predictions, truth, strict=True)]
    assert ndcg(predictions, truth, k=20).tolist() == pytest.approx(expected)


def test_where_nothing_speaks_for_a_query_there_is_nothing_to_find() -> None:
    assert ndcg(torch.randn(1, 3), torch.tensor([[-1.0, 0.0, -2.0]]), k=2).tolist() == [0.0]


@given(VALUES, VALUES, st.integers(1, 9))
def test_it_lies_between_nothing_and_the_true_order(predictions: np.ndarray, truth: np.ndarray, k: int) -> None:
    truth_, predicted = torch.from_numpy(truth), torch.from_numpy(predictions)
    found, best = ndcg(predicted, truth_, k), ndcg(truth_, truth_, k)
    assert ((found >= 0) & (found <= best + 1e-12)).all()
    assert torch.allclose(best, (truth_ > 0).any(1).double())
