"""Rank-biased overlap: the paper's equation, and the laws that make it a measure of two rankings."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorif_assets.mathematics.scores.rank_overlap import rank_biased_overlap, top_overlap

ITEMS = st.integers(0, 40)
RANKINGS = st.lists(ITEMS, unique=True, min_size=1, max_size=30)
PERSISTENCES = st.floats(0.05, 0.98)


def shared(first: list[int], second: list[int], depth: int) -> int:
    return len(set(first[:depth]) & set(second[:depth]))


def printed_equation(first: list[int], second: list[int], p: float) -> float:
    """Equation 32 as the paper prints it: S the shorter ranking, L the longer one."""
    S, L = sorted((first, second), key=len)
    s, n = len(S), len(L)
    X = {d: shared(S, L, d) for d in range(1, n + 1)}
    seen = sum(X[d] / d * p**d for d in range(1, n + 1))
    unseen = sum(X[s] * (d - s) / (s * d) * p**d for d in range(s + 1, n + 1))
    return (1 - p) / p * (seen + unseen) + ((X[n] - X[s]) / n + X[s] / s) * p**n


def infinite_sum(first: list[int], second: list[int], p: float) -> float:
    """The definition, for rankings so long that nothing beyond them has weight."""
    depths = range(1, len(first) + 1)
    return (1 - p) * sum(p ** (d - 1) * shared(first, second, d) / d for d in depths)


@given(RANKINGS, RANKINGS, PERSISTENCES)
def test_it_is_the_papers_extrapolated_overlap(first: list[int], second: list[int], p: float) -> None:
    assert rank_biased_overlap(first, second, p) == pytest.approx(printed_equation(first, second, p), abs=1e-12)


@settings(max_examples=25)
@given(st.permutations(range(250)), st.permutations(range(100, 350)), st.floats(0.3, 0.9))
def test_on_long_rankings_it_is_the_sum_over_all_depths(first: list[int], second: list[int], p: float) -> None:
    assert rank_biased_overlap(first, second, p) == pytest.approx(infinite_sum(first, second, p), abs=1e-9)


def test_a_case_worked_by_hand() -> None:
    # Agreement 0 at depth 1 (weight 1/2), 1 at depth 2 (weight 1/4) and beyond (weight 1/4).
    assert rank_biased_overlap("ab", "ba", 0.5) == pytest.approx(0.5)


@given(RANKINGS, RANKINGS, PERSISTENCES)
def test_it_lies_between_0_and_1_and_is_symmetric(first: list[int], second: list[int], p: float) -> None:
    assert 0 <= rank_biased_overlap(first, second, p) <= 1
    assert rank_biased_overlap(first, second, p) == rank_biased_overlap(second, first, p)


@given(RANKINGS, st.integers(1, 30), PERSISTENCES)
def test_a_ranking_agrees_fully_with_itself_and_with_its_own_beginning(ranking: list[int], n: int, p: float) -> None:
    assert rank_biased_overlap(ranking, ranking, p) == pytest.approx(1)
    assert rank_biased_overlap(ranking, ranking[:n], p) == pytest.approx(1)


@given(RANKINGS, RANKINGS, PERSISTENCES)
def test_rankings_without_a_common_item_do_not_agree_at_all(first: list[int], second: list[int], p: float) -> None:
    assert rank_biased_overlap(first, [item + 1_000 for item in second], p) == 0


@given(st.integers(3, 15), st.floats(0.3, 0.95))
def test_two_items_that_change_places_weigh_the_more_the_higher_they_stand(n: int, p: float) -> None:
    ranking = list(range(n))
    swapped = [[*ranking[:at], at + 1, at, *ranking[at + 2 :]] for at in range(n - 1)]
    overlaps = [rank_biased_overlap(ranking, other, p) for other in swapped]
    assert all(higher < lower < 1 for higher, lower in pairwise(overlaps))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [("", "ab", "found 0, 0 of them different"), ("ab", "aba", "found 3, 2 of them different")],
    ids=["nothing", "an item twice"],
)
def test_what_is_no_ranking_is_refused(first: str, second: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_biased_overlap(first, second)


@pytest.mark.parametrize("p", [0.0, 1.0, -0.5, 1.5])
def test_a_persistence_that_is_no_weight_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=f"lies between 0 and 1, found {p}"):
        rank_biased_overlap("ab", "ab", p)


@pytest.mark.parametrize(
    ("first", "second", "depth", "share"),
    [
        ("abcd", "abcd", 4, 1.0),
        ("abcd", "dcba", 2, 0.0),
        ("abcd", "bxay", 3, 2 / 3),
        ("ab", "abcd", 10, 0.5),
        ("ab", "ba", 10, 1.0),
    ],
    ids=["same", "other ends", "order does not matter", "of the longer one", "both short"],
)
def test_the_share_of_leading_items(first: str, second: str, depth: int, share: float) -> None:
    assert top_overlap(first, second, depth) == pytest.approx(share)
    assert top_overlap(second, first, depth) == pytest.approx(share)
