"""Drift: the share of added gradients that the eigenvectors of before capture, against that of the fitted ones."""

import pytest
import torch

from lorif_assets.mathematics.curvature.drift import BasisDrift
from lorif_assets.mathematics.factors.low_rank import GradientFactors


def gradients(*rows: list[float]) -> GradientFactors:
    """Gradients of a layer of shape 1 x D, given as they are."""
    v = torch.tensor(rows).unsqueeze(2)
    return GradientFactors(torch.ones(len(rows), 1, 1), v)


FIRST_TWO = torch.eye(4)[:, :2]


def test_the_share_is_the_energy_inside_the_eigenvectors_over_all_of_it() -> None:
    drift = BasisDrift(0.9).add(FIRST_TWO, gradients([3.0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 2, 0]))
    assert drift.energy == pytest.approx(15)
    assert drift.added_share == pytest.approx(10 / 15)


def test_drift_adds_up_over_additions_and_keeps_the_fitted_share() -> None:
    at_once = BasisDrift(0.9).add(FIRST_TWO, gradients([3.0, 0, 0, 1], [0, 1, 2, 0]))
    in_parts = BasisDrift(0.9).add(FIRST_TWO, gradients([3.0, 0, 0, 1])).add(FIRST_TWO, gradients([0.0, 1, 2, 0]))
    assert in_parts == at_once


@pytest.mark.parametrize(("ratio", "below"), [(0.0, False), (0.7, False), (0.8, True), (1.0, True)])
def test_it_is_below_a_ratio_of_the_fitted_share_or_not(ratio: float, below: bool) -> None:
    drift = BasisDrift(0.9).add(FIRST_TWO, gradients([3.0, 0, 0, 1], [0, 1, 2, 0]))
    assert drift.is_below(ratio) is below


@pytest.mark.parametrize("factors", [gradients([0.0, 0, 0, 0]), None])
def test_nothing_added_is_no_drift(factors: GradientFactors | None) -> None:
    drift = BasisDrift(0.9) if factors is None else BasisDrift(0.9).add(FIRST_TWO, factors)
    assert drift.added_share is None
    assert not drift.is_below(1.0)
