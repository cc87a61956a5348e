"""Which examples of a ranking are taken."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorif_assets.errors import SettingsError
from lorif_assets.influences.choice import Amount, Choice, taken, weights
from lorif_assets.influences.ranked import Side

VALUES = np.array([3.0, -1.0, 2.0, 5.0, 0.0, -4.0])
ALL = [np.arange(6)]
TOP, BOTTOM = Side.PROPONENTS, Side.OPPONENTS


def nothing_repeats(_place):
    return False


class Repeating:
    """Examples of one kind repeat one another."""

    def __init__(self, kinds):
        self.kinds, self.seen = kinds, set()

    def __call__(self, place):
        repeats = self.kinds[place] in self.seen
        self.seen.add(self.kinds[place])
        return repeats


@pytest.mark.parametrize(
    ("amount", "total", "expected"),
    [("10%", 50, 5), ("10 %", 3, 1), ("0.5%", 1_000, 5), ("100%", 7, 7), (3, 7, 3), ("3", 2, 2), (" 12 ", 40, 12)],
)
def test_an_amount_is_a_share_of_at_least_one_or_a_number(amount, total, expected):
    assert Amount.parse(amount).of(total) == expected


@pytest.mark.parametrize("amount", ["0%", "101%", "ten", "", "-3", 0, 0.1, "1.5", True, None, "nan%"])
def test_what_is_no_amount_is_refused(amount):
    with pytest.raises(SettingsError, match="an amount is a share"):
        Amount.parse(amount)


def test_the_top_and_the_bottom_are_the_ends_of_the_ranking_in_the_order_of_the_data():
    assert taken(VALUES, ALL, Choice(TOP, Amount.parse(2)), nothing_repeats).tolist() == [0, 3]
    assert taken(VALUES, ALL, Choice(BOTTOM, Amount.parse("50%")), nothing_repeats).tolist() == [1, 4, 5]


def test_excluding_an_end_takes_everything_else():
    assert taken(VALUES, ALL, Choice(TOP, Amount.parse(2), exclude=True), nothing_repeats).tolist() == [1, 2, 4, 5]
    assert taken(VALUES, ALL, Choice(BOTTOM, Amount.parse("100%"), exclude=True), nothing_repeats).tolist() == []


def test_of_each_group_as_much_is_taken():
    groups = [np.array([0, 1, 2]), np.array([3, 4, 5])]
    assert taken(VALUES, groups, Choice(TOP, Amount.parse(1)), nothing_repeats).tolist() == [0, 3]
    assert taken(VALUES, groups, Choice(BOTTOM, Amount.parse(1)), nothing_repeats).tolist() == [1, 5]


def test_an_example_of_two_groups_counts_in_both():
    groups = [np.array([0, 1, 3]), np.array([2, 3, 4])]
    assert taken(VALUES, groups, Choice(TOP, Amount.parse(1)), nothing_repeats).tolist() == [3]


def test_a_near_duplicate_makes_room_for_the_next_in_the_ranking():
    chosen = taken(VALUES, ALL, Choice(TOP, Amount.parse(3)), Repeating("abcaef"))
    # The first repeats the fourth, which leads.
    assert chosen.tolist() == [2, 3, 4]


def test_beside_what_is_excluded_the_first_of_its_kind_stays():
    chosen = taken(VALUES, ALL, Choice(TOP, Amount.parse(1), exclude=True), Repeating("aabcbc"))
    assert chosen.tolist() == [0, 2, 5]


def test_weights_follow_the_ranks_with_mean_one_and_equal_values_share_one():
    found = weights(np.array([5.0, 1.0, 1.0, 9.0]), [np.arange(4)], nothing_repeats)
    assert found.tolist() == [1.25, 0.5, 0.5, 1.75]
    assert found.mean() == 1


def test_weights_are_of_ranks_within_the_group_and_nothing_of_a_near_duplicate():
    groups = [np.array([0, 1, 2]), np.array([3, 4, 5])]
    found = weights(VALUES, groups, Repeating("abcaef"))
    assert found.tolist() == [0.0, 0.5, 1.5, pytest.approx(5 / 3), 1.0, pytest.approx(1 / 3)]


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    st.integers(1, 40),
    st.sampled_from([TOP, BOTTOM]),
)
def test_an_end_and_all_but_it_are_the_whole_and_no_value_of_the_end_is_behind_one_of_the_rest(values, count, side):
    values, everything = np.array(values), [np.arange(len(values))]
    end = taken(values, everything, Choice(side, Amount.parse(count)), nothing_repeats)
    rest = taken(values, everything, Choice(side, Amount.parse(count), exclude=True), nothing_repeats)
    assert sorted([*end, *rest]) == list(range(len(values)))
    assert len(end) == min(count, len(values))
    if len(rest):
        behind = values[end].min() >= values[rest].max() if side is TOP else values[end].max() <= values[rest].min()
        assert behind
