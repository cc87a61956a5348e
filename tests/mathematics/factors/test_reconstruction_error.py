"""The error of factors against the gradients they were made of."""

import pytest
import torch

from lorif_assets.mathematics.factors.low_rank import GradientFactors, low_rank_factors, reconstruction_error

G = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("c", [1, 2, 3])
def test_factors_come_near_the_least_error_and_others_do_not(c: int) -> None:
    squares = torch.linalg.svdvals(G.double()).square()
    least = float(squares[:, c:].sum() / squares.sum()) ** 0.5
    assert least * (1 - 1e-5) <= reconstruction_error(G, low_rank_factors(G, c)) <= 1.05 * least
    assert reconstruction_error(G, GradientFactors(torch.randn(5, 6, c), torch.randn(5, 4, c))) > least


def test_full_rank_leaves_no_error() -> None:
    assert reconstruction_error(G, low_rank_factors(G, 4)) == pytest.approx(0.0, abs=1e-5)


def test_zero_gradients_are_reproduced_by_zero_factors() -> None:
    zero = torch.zeros(2, 6, 4)
    assert reconstruction_error(zero, low_rank_factors(zero, 1)) == 0.0
