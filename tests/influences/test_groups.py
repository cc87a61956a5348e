"""Influence by metadata."""

import math

import numpy as np
import pytest

from lorif_assets.errors import NotStoredError
from lorif_assets.influences.catalogue import scored_query
from lorif_assets.influences.groups import NO_VALUE, grouped, stored_noise_share
from lorif_assets.influences.ranked import ranked_query
from lorif_assets.lake.attribution_tables import GROUP_SCORES
from lorif_assets.mathematics.scores.shrinkage import shrunk
from tests.stored_influences import LATE, SET, put, stored_influences


@pytest.fixture
def ranked(lake):
    return ranked_query(lake, LATE, scored_query(lake, LATE, SET, "q/1"), "plain")


def test_scores_are_summed_by_value_with_an_interval_the_largest_sums_first(lake, ranked):
    found = grouped(lake, ranked, "topic")
    groups = {group.name: group for group in found.groups}
    animals, none = groups["animals"], groups[NO_VALUE]
    assert (animals.n_examples, animals.total, animals.mean) == (2, 7.0, 3.5)
    half = 1.96 * math.sqrt(2) * np.std([4.0, 3.0], ddof=1)
    assert (animals.low, animals.high) == pytest.approx((7 - half, 7 + half))
    assert animals.share == pytest.approx(7 / 18)
    assert animals.example_share == pytest.approx(2 / 6)
    assert (none.total, none.low, none.high) == (-6.0, None, None)
    assert [group.name for group in found.groups][:2] == ["animals", NO_VALUE]
    assert found.is_complete


def test_an_example_with_several_values_counts_for_each(lake, ranked):
    groups = {group.name: group.total for group in grouped(lake, ranked, "tags").groups}
    assert (groups["fox"], groups["dog"]) == (7.0, 4.0)


def test_of_a_list_with_two_ends_the_groups_say_that_they_are_not_all(tmp_path):
    lake = stored_influences(tmp_path, n_listed=2)
    ranked = ranked_query(lake, LATE, scored_query(lake, LATE, SET, "q/1"), "plain")
    found = grouped(lake, ranked, None)
    assert (found.column, found.n_grouped, found.n_examples, found.is_complete) == ("topic", 4, 6, False)
    # Chosen by their scores, they say nothing of others of their kind.
    assert {(group.low, group.high) for group in found.groups} == {(None, None)}


def test_a_column_that_nobody_has_is_refused_with_those_that_there_are(lake, ranked):
    with pytest.raises(NotStoredError, match="no training example has the metadata column 'x'; there are topic, tags"):
        grouped(lake, ranked, "x")


def test_examples_without_metadata_are_told_how_to_get_some(tmp_path):
    lake = stored_influences(tmp_path, names=("plain",))
    ranked = ranked_query(lake, LATE, scored_query(lake, LATE, SET, "q/1"), "plain")
    with pytest.raises(NotStoredError, match=r"name columns in `columns.metadata` of the source"):
        grouped(lake, ranked, None)


def test_where_the_noise_of_scores_was_measured_posterior_means_are_summed(lake, ranked):
    found = grouped(lake, ranked, "topic", 0.4)
    means = dict(zip(ranked.rows["example_id"], shrunk(ranked.rows["value"].to_numpy()[None], 0.4)[0], strict=True))
    animals = next(group for group in found.groups if group.name == "animals")
    assert animals.total == pytest.approx(means["fox"] + means["fox/again"])
    assert animals.share == pytest.approx(animals.total / sum(map(abs, means.values())))
    assert found.noise_share == 0.4
    assert grouped(lake, ranked, "topic").noise_share is None


def test_the_two_ends_of_a_ranking_are_shrunk_by_the_spread_of_all_its_scores(tmp_path):
    lake = stored_influences(tmp_path, n_listed=2)
    ranked = ranked_query(lake, LATE, scored_query(lake, LATE, SET, "q/1"), "plain")
    found = next(group for group in grouped(lake, ranked, "topic", 0.4).groups if group.name == "animals")
    assert found.total == pytest.approx(shrunk(np.array([[4.0, 3.0]]), 0.4, np.array([[2.0]])).sum())


def test_the_noise_is_that_of_stored_sums_of_the_same_plain_scores(tmp_path):
    lake = stored_influences(tmp_path)
    assert stored_noise_share(lake, LATE, SET, "plain") is None
    row = {"checkpoint": LATE, "query_set": SET, "query_id": "q/1", "noise_share": 0.3}
    put(lake, GROUP_SCORES, [row | {"scores_from": "now"}])
    assert stored_noise_share(lake, LATE, SET, "plain") == 0.3
    assert stored_noise_share(lake, LATE, SET, "relative") is None
    put(lake, GROUP_SCORES, [row | {"scores_from": "before"}])
    assert stored_noise_share(lake, LATE, SET, "plain") is None
