"""The mean ROC curve: the area below it is the chance that a relevant example outranks another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.mathematics.evaluation.roc import FALSE_POSITIVE_RATES, mean_roc_curve


def area(scores: list[float], relevant: list[bool]) -> float:
    curve = mean_roc_curve(np.array([scores]), np.array([relevant]))
    assert curve is not None
    return float(np.trapezoid(curve, FALSE_POSITIVE_RATES))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=4, max_size=30))
def test_the_area_is_the_chance_that_a_relevant_example_outranks_another_ties_counting_half(
    examples: list[tuple[int, bool]],
) -> None:
    wanted = [score for score, relevant in examples if relevant]
    others = [score for score, relevant in examples if not relevant]
    if not wanted or not others:
        return
    chance = np.mean([(a > b) + 0.5 * (a == b) for a in wanted for b in others])
    assert area([score for score, _ in examples], [relevant for _, relevant in examples]) == pytest.approx(
        chance, abs=0.03
    )


def test_a_ranking_with_all_sources_first_finds_them_at_once() -> None:
    curve = mean_roc_curve(np.array([[3.0, 2.0, 1.0, 0.0]]), np.array([[True, True, False, False]]))
    assert curve is not None
    assert curve.tolist() == [1.0] * len(FALSE_POSITIVE_RATES)


def test_the_curve_is_the_mean_over_the_queries_that_have_sources() -> None:
    scores = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    relevant = np.array([[True, False, False], [True, False, False], [False, False, False]])
    curve = mean_roc_curve(scores, relevant)
    assert curve is not None
    assert curve[0] == pytest.approx(0.5)
    assert curve[-1] == 1
    assert mean_roc_curve(scores[2:], relevant[2:]) is None
