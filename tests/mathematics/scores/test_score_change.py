"""The change of probe scores: a common factor is none, and everything else is measured."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.mathematics.scores.score_change import scale_and_change

BEFORE = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))


@given(st.floats(0.01, 100))
def test_a_common_factor_is_found_and_is_no_change(factor: float) -> None:
    scale, change = scale_and_change(BEFORE, BEFORE * factor)
    torch.testing.assert_close(scale, torch.full((3,), factor, dtype=torch.float64), rtol=1e-5, atol=0)
    assert float(change.max()) < 1e-5


def test_what_no_factor_explains_is_the_change_of_its_query_alone() -> None:
    after = BEFORE.clone()
    noise = torch.randn(20, generator=torch.Generator().manual_seed(1))
    noise -= (noise @ BEFORE[1]) / (BEFORE[1] @ BEFORE[1]) * BEFORE[1]
    after[1] += 0.1 * BEFORE[1].norm() / noise.norm() * noise
    scale, change = scale_and_change(BEFORE, after)
    assert scale.tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert change.tolist() == pytest.approx([0, 0.1 / 1.01**0.5, 0], abs=1e-5)


def test_zero_scores_that_stay_zero_did_not_change_and_others_changed_altogether() -> None:
    zero, one = torch.zeros(1, 4), torch.ones(1, 4)
    assert [part.tolist() for part in scale_and_change(zero, zero)] == [[1.0], [0.0]]
    assert scale_and_change(zero, one)[1].tolist() == [1.0]
    assert scale_and_change(one, zero)[1].tolist() == [1.0]
