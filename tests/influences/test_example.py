"""One training example, and how its rank moved."""

import pytest

from lorif_assets.errors import NotStoredError
from lorif_assets.influences.example import example
from lorif_assets.influences.movement import movement
from lorif_assets.influences.ranked import Side
from tests.stored_influences import EARLY, LATE, QUERIES, SET, SHARD


def test_an_example_tells_how_well_checkpoints_know_it_and_which_queries_list_it(lake):
    found = example(lake, SHARD, "plain", most_moved=3)
    assert [(one.checkpoint, one.loss_per_token, one.truncated) for one in found.losses] == [
        (EARLY, 2.0, True),
        (LATE, 1.0, True),
    ]
    assert (found.n_moved, len(found.moved)) == (4, 3)
    assert {(one.checkpoint, one.side, one.rank, one.spreads) for one in found.moved} == {
        (EARLY, Side.PROPONENTS, 1, 3.0),
        (LATE, Side.OPPONENTS, 1, -3.0),
    }
    assert found.moved[0].query_set == SET
    assert {"".join(part.text for part in one.parts) for one in found.moved} <= {
        prompt + said for prompt, said in QUERIES.values()
    }


def test_the_strongest_come_first_and_one_checkpoint_can_be_asked_for(lake):
    found = example(lake, SHARD, "hostile", most_moved=10, checkpoint=LATE)
    assert {one.checkpoint for one in found.moved} == {LATE}
    assert {one.query_id for one in found.moved} == set(QUERIES)


def test_an_example_that_is_not_there_is_refused(lake):
    with pytest.raises(NotStoredError, match="no example 'x' in the shard 'docs'"):
        example(lake, SHARD, "x", most_moved=3)


def test_leading_examples_have_their_rank_at_every_checkpoint_those_that_lead_last_first(lake):
    found = movement(lake, SET, "q/1", "plain", Side.PROPONENTS, leading=1)
    assert [(one.checkpoint, one.overlap) for one in found.checkpoints] == [(EARLY, None), (LATE, 0.25)]
    assert [(one.example_id, one.ranks) for one in found.examples] == [("fox", (None, 1)), ("plain", (1, None))]


def test_movement_by_relative_influence_has_its_own_ranks_and_overlap(lake):
    found = movement(lake, SET, "q/1", "relative", Side.PROPONENTS, leading=1)
    assert found.checkpoints[1].overlap == 0.5
    assert [one.example_id for one in found.examples] == ["fox/again", "plain"]


def test_a_query_that_nobody_scored_is_refused(lake):
    with pytest.raises(NotStoredError, match="no checkpoint has scores of a query 'x'"):
        movement(lake, SET, "x", "plain", Side.PROPONENTS, leading=3)
