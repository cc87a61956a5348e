"""Agreement of rankings: Spearman's correlation, ranks and recall."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from lorif_assets.mathematics.influcoder.agreement import agreement, rank_transformed, recall_at


def test_agreement_is_the_mean_spearman_of_rows_and_that_of_the_column_means() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(6, 30, generator=generator)
    predicted = truth + torch.randn(6, 30, generator=generator)
    found = agreement(predicted, truth)
    rows = [spearmanr(p, t).statistic for p, t in zip(predicted.numpy(), truth.numpy(), strict=True)]
    assert found.per_anchor == pytest.approx(np.mean(rows))
    assert found.aggregated == pytest.approx(spearmanr(predicted.mean(0), truth.mean(0)).statistic)


def test_ties_share_their_rank_and_a_constant_row_agrees_with_nothing() -> None:
    predicted = torch.tensor([[1.0, 1.0, 2.0, 3.0], [5.0, 5.0, 5.0, 5.0]])
    truth = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    expected = spearmanr(predicted[0].numpy(), truth[0].numpy()).statistic
    assert agreement(predicted, truth).per_anchor == pytest.approx(expected / 2)


def test_a_rank_transform_keeps_the_order_and_forgets_the_scale() -> None:
    scores = torch.tensor([[3.0, -1.0, 100.0], [0.3, -0.1, 0.2]])
    assert rank_transformed(scores).tolist() == [[0.5, 0.0, 1.0], [1.0, 0.0, 0.5]]


def test_recall_is_the_share_of_the_exact_leaders_among_the_proposed() -> None:
    exact = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0]])
    proposed = torch.tensor([[9.0, 1.0, 8.0, 7.0, 6.0]])
    assert recall_at(proposed, exact, k=2, candidates=[1, 2, 4, 5]) == [0.5, 0.5, 0.5, 1.0]
