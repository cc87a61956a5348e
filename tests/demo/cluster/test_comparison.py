"""What two lakes have in common: bit for bit, to floating point, or not."""

import polars as pl
import pytest

from lorif_assets.demo.cluster.comparison import compared_rows

SCORES = pl.DataFrame(
    {
        "query_id": ["q", "q", "q"],
        "rank": pl.Series([1, 2, 3], dtype=pl.Int32),
        "example_id": ["a", "b", "c"],
        "score": pl.Series([4.0, 2.0, 1.0], dtype=pl.Float32),
    }
)


def test_equal_rows_in_another_order_are_equal_bit_for_bit() -> None:
    found = compared_rows("query_scores", SCORES, SCORES.reverse())
    assert found.agrees
    assert str(found) == "bit for bit"


def test_the_rounding_of_sums_is_said_and_is_no_difference() -> None:
    rounded = SCORES.with_columns(score=pl.col("score") * (1 + 1e-6))
    found = compared_rows("query_scores", SCORES, rounded)
    assert found.agrees
    assert found.difference == pytest.approx(1e-6, rel=0.2)
    assert str(found).startswith("to 1e-06 of the largest value")


def test_ranks_that_changed_places_by_rounding_are_counted() -> None:
    swapped = SCORES.with_columns(example_id=pl.Series(["a", "c", "b"]))
    found = compared_rows("query_scores", SCORES, swapped)
    assert found.agrees
    assert str(found).endswith("2 at a neighbour's rank")


def test_what_is_said_of_an_example_goes_with_it_to_a_neighbours_rank() -> None:
    one = SCORES.with_columns(relative_score=pl.Series([0.4, 0.3, 0.1], dtype=pl.Float32))
    swapped = one.with_columns(
        example_id=pl.Series(["a", "c", "b"]), relative_score=pl.Series([0.4, 0.1, 0.3], dtype=pl.Float32)
    )
    assert str(compared_rows("query_scores", one, swapped)) == "bit for bit, 2 at a neighbour's rank"
    left_behind = swapped.with_columns(relative_score=pl.Series([0.4, 0.2, 0.3], dtype=pl.Float32))
    assert not compared_rows("query_scores", one, left_behind).agrees


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (SCORES.with_columns(score=pl.col("score") * 1.01), "to 1e-02 of the largest value"),
        (SCORES.head(2), "other rows: 2"),
        (SCORES.with_columns(query_id=pl.Series(["p", "p", "p"])), "differs in query_id"),
        (SCORES.with_columns(score=pl.Series([4.0, None, 1.0], dtype=pl.Float32)), "differs in score"),
        (SCORES.drop("example_id"), "differs in example_id"),
    ],
    ids=["score", "rows", "name", "null", "column"],
)
def test_what_rounding_does_not_explain_is_a_difference(other: pl.DataFrame, said: str) -> None:
    found = compared_rows("query_scores", SCORES, other)
    assert not found.agrees
    assert str(found) == said


def test_lists_of_numbers_are_compared_number_by_number() -> None:
    one = pl.DataFrame({"layer": ["l"], "eigenvalues": [[2.0, 1.0]]})
    other = pl.DataFrame({"layer": ["l"], "eigenvalues": [[2.0, 1.0 + 1e-7]]})
    assert compared_rows("ekfac_preconditioners", one, other).difference == pytest.approx(5e-8, rel=1e-3)
    longer = pl.DataFrame({"layer": ["l"], "eigenvalues": [[2.0, 1.0, 0.0]]})
    assert not compared_rows("ekfac_preconditioners", one, longer).agrees
