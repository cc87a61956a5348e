"""What is said of a query at neighbouring checkpoints, read from scores as they are stored."""

import json
from dataclasses import replace

import polars as pl
import pytest

from lorif_assets.data.passages import Part
from lorif_assets.mathematics.scores.rank_overlap import rank_biased_overlap
from lorif_assets.pages.comparison.assembly import assemble, comparison_rows
from lorif_assets.pages.comparison.content import DEPTH, ComparisonContent, Passage, QueryHistory, Transition
from lorif_assets.project import Project
from tests.pages.comparison.conftest import EXAMPLES
from tests.pages.comparison.stored_scores import QUERY_SET, SHARD, StoredScores


def comparison(store: StoredScores) -> ComparisonContent:
    return assemble(replace(Project.of(store.settings), lake=store.lake), QUERY_SET, {})


def rows(store: StoredScores) -> pl.DataFrame:
    return pl.DataFrame(comparison_rows(comparison(store), store.recipe))


def history(store: StoredScores, query: str = "q0") -> QueryHistory:
    (found,) = (history for history in comparison(store).queries if history.query_id == query)
    return found


def only_transition(store: StoredScores) -> Transition:
    (found,) = history(store).transitions
    assert found
    return found


def ids(examples: tuple[tuple[str, str], ...]) -> list[str]:
    return [example_id for _, example_id in examples]


# --- Entries and exits -----------------------------------------------------------------------------------------------


def test_what_enters_the_top_10_is_told_by_its_new_rank_and_what_leaves_by_its_old_one(store: StoredScores) -> None:
    before = EXAMPLES
    after = ["e20", *EXAMPLES[4:11], "e00", "e29", "e01", "e02"]
    store.scores("step-3", {"q0": before}, stored=15)
    store.scores("step-20", {"q0": after}, stored=15)
    transition = only_transition(store)
    assert ids(transition.entered) == ["e20", "e10", "e29"]
    assert ids(transition.left) == ["e01", "e02", "e03"]
    assert transition.overlap_at_10 == pytest.approx(0.7)
    assert transition.rank_biased_overlap == pytest.approx(rank_biased_overlap(before[:15], after))


def test_the_rankings_by_relative_influence_are_compared_where_both_are_stored(store: StoredScores) -> None:
    before, after = EXAMPLES[:12], EXAMPLES[3:15]
    store.scores("step-3", {"q0": EXAMPLES}, stored=15, relative={"q0": before})
    store.scores("step-20", {"q0": EXAMPLES}, stored=15, relative={"q0": after})
    store.scores("step-100", {"q0": EXAMPLES}, stored=15)
    first, second = history(store).transitions
    assert first
    assert second
    assert first.relative_overlap == pytest.approx(rank_biased_overlap(before, after))
    assert second.relative_overlap is None
    assert rows(store).sort("to_checkpoint")["relative_overlap"].to_list() == [None, first.relative_overlap]
    assert comparison(store).mean_relative_overlaps == [first.relative_overlap, None]


def test_rankings_that_did_not_move_agree_fully_and_nothing_enters_or_leaves(store: StoredScores) -> None:
    store.scores("step-3", {"q0": EXAMPLES}, stored=15)
    store.scores("step-20", {"q0": EXAMPLES}, stored=15)
    transition = only_transition(store)
    assert (transition.rank_biased_overlap, transition.overlap_at_10) == (pytest.approx(1), 1)
    assert (transition.entered, transition.left) == ((), ())
    assert comparison(store).passages == {}


def test_an_order_that_changes_within_the_top_10_lowers_the_overlap_though_nothing_enters(store: StoredScores) -> None:
    store.scores("step-3", {"q0": EXAMPLES}, stored=15)
    store.scores("step-20", {"q0": [*EXAMPLES[9::-1], *EXAMPLES[10:]]}, stored=15)
    transition = only_transition(store)
    assert (transition.entered, transition.left, transition.overlap_at_10) == ((), (), 1)
    assert transition.rank_biased_overlap < 0.8


def test_examples_of_one_id_in_two_shards_are_two(store: StoredScores) -> None:
    store.scores("step-3", {"q0": ["e00"]}, stored=1)
    standing = history(store).standings[0]
    assert standing
    assert standing.rank((SHARD, "e00")) == 1
    assert standing.rank(("docs-00001", "e00")) is None


def test_passages_are_there_for_what_moved_also_where_it_was_withdrawn(scored: StoredScores) -> None:
    scored.examples(EXAMPLES[1:])
    assert comparison(scored).passages == {
        (SHARD, "e00"): Passage((Part("(no longer in the training data)", carries_loss=True),), {}),
        **{
            (SHARD, name): Passage((Part(f"passage {name}", carries_loss=True),), {"topic": "with"})
            for name in ("e01", "e10", "e11")
        },
    }


# --- How scores are stored -------------------------------------------------------------------------------------------


def test_a_full_ranking_gives_what_its_stored_ends_give(store: StoredScores) -> None:
    long = [f"x{number:03d}" for number in range(2 * DEPTH)]
    rankings = [{"q0": long, "q1": long[::-1]}, {"q0": [*long[5:], *long[:5]], "q1": [*long[9::-1], *long[10:]]}]
    found = []
    for stored in (DEPTH, None):
        for name, ranking in zip(("step-3", "step-20"), rankings, strict=True):
            store.scores(name, ranking, stored=stored)
        found.append(rows(store))
    ends, everything = found
    assert ends.height == 2
    assert ends.equals(everything)


def test_opponents_do_not_take_part(store: StoredScores) -> None:
    store.scores("step-3", {"q0": EXAMPLES}, stored=12)
    store.scores("step-20", {"q0": [*EXAMPLES[:12], *EXAMPLES[:11:-1]]}, stored=12)
    assert only_transition(store).rank_biased_overlap == pytest.approx(1)


# --- The rows of the table -------------------------------------------------------------------------------------------


def test_every_query_has_a_row_for_every_two_neighbours(scored: StoredScores) -> None:
    found = rows(scored)
    assert found.select("query_id", "from_checkpoint", "to_checkpoint").rows() == [
        ("q0", "step-3", "step-20"),
        ("q0", "step-20", "step-100"),
        ("q1", "step-3", "step-20"),
        ("q1", "step-20", "step-100"),
    ]
    first = found.row(0, named=True)
    assert (json.loads(first["entered"]), json.loads(first["left"])) == (["e10"], ["e00"])
    assert (first["loss_per_token_from"], first["loss_per_token_to"]) == (3.0, 2.0)
    assert first["overlap_at_10"] == pytest.approx(0.9)
    assert set(found["recipe_hash"]) == {scored.recipe.score_hash}
    assert found["computed_from"].n_unique() == 2


def test_a_query_that_the_older_checkpoint_was_not_scored_for_has_its_loss_and_nothing_to_compare(
    store: StoredScores,
) -> None:
    store.scores("step-3", {"q0": EXAMPLES})
    store.scores("step-20", {"q0": EXAMPLES, "q1": EXAMPLES}, losses={"q1": 4.0})
    store.scores("step-100", {"q0": EXAMPLES})
    found = rows(store).filter(query_id="q1").to_dicts()
    assert [(row["from_checkpoint"], row["loss_per_token_to"]) for row in found] == [("step-3", 4.0)]
    empty = ("rank_biased_overlap", "overlap_at_10", "entered", "left", "loss_per_token_from")
    assert [found[0][column] for column in empty] == [None] * 5
    assert history(store, "q1").losses == (None, 4.0, None)
    assert history(store, "q1").mean_rank_biased_overlap is None


def test_the_values_of_a_contrast_are_not_stored_as_losses(store: StoredScores) -> None:
    for name, value in (("step-3", 3.0), ("step-20", -0.5)):
        store.scores(name, {"q0": EXAMPLES, "q1": EXAMPLES}, losses={"q1": value})
    store.queries("q0", "q1", objectives={"q1": {"against": " another"}})
    loss, contrast = rows(store).sort("query_id").to_dicts()
    assert (loss["value_from"], loss["value_to"]) == (None, None)
    assert None not in (loss["loss_per_token_from"], loss["loss_per_token_to"])
    assert (contrast["loss_per_token_from"], contrast["loss_per_token_to"]) == (None, None)
    # Not by token: of the two completions each has its own number.
    assert (contrast["value_from"], contrast["value_to"]) == (6.0, -1.0)
    assert history(store, "q1").value_name == "difference of the losses"


def test_a_query_that_left_the_query_set_is_still_compared_where_it_was_scored(scored: StoredScores) -> None:
    scored.queries("q1")
    assert [query.query_id for query in comparison(scored).queries] == ["q1", "q0"]
    assert history(scored, "q0").completion == "(no longer in the query set)"


def test_the_value_of_a_query_that_left_the_query_set_is_no_loss_as_nobody_knows_what_it_asked(
    scored: StoredScores,
) -> None:
    scored.queries("q1")
    assert history(scored, "q0").losses == (None, None, None)
    assert comparison(scored).mean_losses == list(history(scored, "q1").losses)
    (row, _) = rows(scored).filter(query_id="q0").to_dicts()
    assert [row[f"{name}_{end}"] for name in ("loss_per_token", "value") for end in ("from", "to")] == [None] * 4
    assert row["overlap_at_10"] is not None


# --- Means and warnings ----------------------------------------------------------------------------------------------


def test_means_are_over_the_queries_of_each_checkpoint(scored: StoredScores) -> None:
    found = comparison(scored)
    assert found.mean_losses == [4.0, 3.0, 2.0]
    assert found.mean_overlaps_at_10 == pytest.approx([0.95, 0.95])
    moved = rank_biased_overlap(EXAMPLES[:15], EXAMPLES[1:16])
    assert found.mean_rank_biased_overlaps == pytest.approx([(moved + 1) / 2] * 2)
    assert found.depth == 15


def test_checkpoints_that_were_scored_with_other_data_than_is_there_now_are_named(scored: StoredScores) -> None:
    assert comparison(scored).stale_checkpoints == ()
    scored.examples(EXAMPLES, version="data 2")
    scored.scores("step-100", {"q0": EXAMPLES})
    assert comparison(scored).stale_checkpoints == ("step-3", "step-20")
