"""Lists of proponents and opponents."""

import polars as pl
import pytest

from lorif_assets.errors import NotStoredError, SettingsError
from lorif_assets.influences import listing
from lorif_assets.influences.catalogue import scored_query
from lorif_assets.influences.listing import Filter, influence_list
from lorif_assets.influences.ranked import Ranked, Side, ranked_query
from tests.stored_influences import LATE, SET, stored_influences

EVERYTHING = Filter()
PROPONENTS, OPPONENTS = Side.PROPONENTS, Side.OPPONENTS


@pytest.fixture
def query(lake):
    return scored_query(lake, LATE, SET, "q/1")


@pytest.fixture
def listed(lake, query):
    def of(side=PROPONENTS, wanted=EVERYTHING, ranking="plain", method="lorif", offset=0, limit=10, fold=False):
        ranked = ranked_query(lake, LATE, query, ranking, method)
        return influence_list(lake, ranked, side, wanted, offset, limit, fold=fold)

    return of


def names(found):
    return [one.example_id for one in found.rows]


def test_both_sides_are_listed_by_rank_with_scores_in_spreads(listed):
    assert names(listed()) == ["fox", "fox/again", "hostile"]
    assert names(listed(OPPONENTS)) == ["plain", "asked", "chat"]
    first = listed().rows[0]
    assert (first.rank, first.value, first.spreads) == (1, 4.0, 2.0)
    assert listed().largest == 6.0
    # The two sides together have all six examples here.
    assert listed().is_complete


def test_the_lowest_scores_are_opponents_only_where_they_are_negative():
    rows = {"side": ["highest"] * 2 + ["lowest"] * 3, "rank": [1, 2, 1, 2, 3], "value": [3.0, 2.0, -1.0, 0.0, 2.0]}
    ranked = Ranked(pl.DataFrame({**rows, "shard": "s", "example_id": ["a", "b", "c", "d", "b"]}), 4, 1.0)
    assert ranked.side(OPPONENTS)["example_id"].to_list() == ["c"]
    assert ranked.side(PROPONENTS)["example_id"].to_list() == ["a", "b"]
    helpful = Ranked(ranked.rows.filter(pl.col("value") > 0), 4, 1.0)
    assert helpful.side(OPPONENTS).is_empty()


def test_by_relative_influence_the_order_is_another_and_there_are_no_spreads(listed):
    found = listed(ranking="relative")
    assert names(found) == ["fox/again", "fox", "hostile"]
    assert [one.value for one in found.rows] == [3.0, 0.5, 0.5]
    assert found.rows[0].spreads is None


def test_another_method_lists_every_example_that_speaks_for_a_side(listed):
    assert names(listed(method="bm25")) == ["plain", "asked", "chat"]
    assert names(listed(OPPONENTS, method="bm25")) == ["fox", "fox/again", "hostile"]
    assert [one.rank for one in listed(OPPONENTS, method="bm25").rows] == [1, 2, 3]


def test_a_method_without_scores_is_refused_with_those_that_have_some(listed):
    with pytest.raises(NotStoredError, match="there is a plain one by lorif, bm25"):
        listed(method="random")
    with pytest.raises(NotStoredError, match="no relative ranking"):
        listed(method="bm25", ranking="relative")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Filter("QUICK Brown"), ["fox", "fox/again"]),
        (Filter("<script>"), ["hostile"]),
        (Filter(metadata=(("tags", "dog"),)), ["fox"]),
        (Filter("morning", (("topic", "animals"), ("tags", "fox"))), ["fox", "fox/again"]),
        (Filter(metadata=(("tags", "fox"), ("tags", "dog"))), ["fox"]),
        (Filter(metadata=(("topic", "sums"),)), []),
        (Filter(metadata=(("no such", "x"),)), []),
    ],
)
def test_a_filter_goes_by_text_whatever_its_case_and_by_metadata(listed, wanted, expected):
    found = listed(wanted=wanted)
    assert names(found) == expected
    assert (found.n_admitted, found.n_listed) == (len(expected), 3)


def test_numbers_in_metadata_are_filtered_as_json(listed):
    assert names(listed(OPPONENTS, Filter(metadata=(("year", "2026"),)))) == ["asked"]


def test_near_duplicates_are_folded_into_the_first_of_them(listed):
    found = listed(fold=True)
    assert names(found) == ["fox", "hostile"]
    assert [(copy.rank, copy.example_id) for copy in found.rows[0].copies] == [(2, "fox/again")]
    assert (found.n_rows, found.n_admitted) == (2, 3)


def test_pages_follow_one_another(listed):
    first = listed(limit=2)
    assert (names(first), first.next_offset) == (["fox", "fox/again"], 2)
    last = listed(offset=2, limit=2)
    assert (names(last), last.next_offset) == (["hostile"], None)
    assert names(listed(offset=9)) == []


def test_the_values_of_metadata_that_can_be_chosen_are_counted(listed):
    assert listed().metadata["topic"][0] == ("animals", 2)
    assert listed().metadata["tags"] == (("fox", 2), ("dog", 1))


def test_a_chat_and_a_prompt_tell_what_carries_loss(listed):
    asked, chat = listed(OPPONENTS).rows[1:]
    assert [(part.text, part.carries_loss) for part in asked.parts] == [("Two and two?", False), (" Four.", True)]
    assert [(part.role, part.carries_loss) for part in chat.parts] == [("user", False), ("assistant", True)]


def test_an_example_that_was_withdrawn_keeps_its_place_without_a_text(tmp_path):
    lake = stored_influences(tmp_path, names=("fox/again", "hostile", "chat", "asked", "plain"))
    ranked = ranked_query(lake, LATE, scored_query(lake, LATE, SET, "q/1"), "plain")
    rows = influence_list(lake, ranked, PROPONENTS, Filter(), 0, 10, fold=True).rows
    assert (rows[0].example_id, rows[0].parts, rows[0].copies) == ("fox", (), ())


def test_the_spread_of_values_is_shown_where_all_examples_are_ranked(listed):
    bins = listed(method="bm25").distribution
    assert (bins[0].low, bins[-1].high) == (-4.0, 6.0)
    assert sum(one.n_examples for one in bins) == 6
    assert bins[-1].n_examples == 1
    # The two stored ends are listed apart.
    assert listed().distribution == ()


def test_a_filter_that_would_read_too_much_is_refused_and_the_plain_list_is_not(listed, monkeypatch):
    monkeypatch.setattr(listing, "MOST_READ", 2)
    with pytest.raises(SettingsError, match="a filter reads at most 2 texts, and 3 examples are listed"):
        listed(wanted=Filter("fox"))
    assert names(listed(offset=1, limit=1)) == ["fox/again"]
