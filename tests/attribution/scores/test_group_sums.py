"""Influence summed by a column of metadata, with the standard error of the sum."""

import json

import numpy as np
import polars as pl
import pytest

from lorif_assets.attribution.scores.group_sums import GROUP_ROWS, WITHOUT_VALUE, group_sums


def pairs(*rows: tuple[str, float, object]) -> pl.DataFrame:
    texts = [None if metadata is None else json.dumps(metadata) for _, _, metadata in rows]
    return pl.DataFrame(
        {"query_id": [row[0] for row in rows], "score": [row[1] for row in rows], "metadata": texts},
        schema={"query_id": pl.String, "score": pl.Float32, "metadata": pl.String},
    )


def test_sums_are_by_query_and_value_the_largest_first() -> None:
    found = group_sums(
        pairs(
            ("q", 1.0, {"topic": "a"}),
            ("q", 3.0, {"topic": "a", "n": 1}),
            ("q", -5.0, {"topic": "b"}),
            ("r", 2.0, {"topic": "b"}),
        ),
        "topic",
    )
    assert dict(found.schema) == GROUP_ROWS
    rows = found.select("query_id", "value", "n_examples", "score_sum", "score_mean").rows()
    assert rows == [("q", "a", 2, 4.0, 2.0), ("q", "b", 1, -5.0, -5.0), ("r", "b", 1, 2.0, 2.0)]


def test_the_interval_is_by_the_standard_error_of_the_sum_and_one_example_has_none() -> None:
    scores = [1.0, 2.0, 4.0, 8.0]
    found = group_sums(pairs(*(("q", score, {"topic": "a"}) for score in scores), ("q", 1.0, {"topic": "b"})), "topic")
    of_a, of_b = found.to_dicts()
    error = 2 * np.std(scores, ddof=1)
    assert of_a["standard_error"] == pytest.approx(error)
    assert (of_a["low"], of_a["high"]) == pytest.approx((15 - 1.96 * error, 15 + 1.96 * error), rel=1e-4)
    assert of_b["standard_error"] is of_b["low"] is of_b["high"] is None


def test_examples_without_a_value_are_a_group_and_lists_are_one_value() -> None:
    found = group_sums(
        pairs(
            ("q", 1.0, None),
            ("q", 1.0, {}),
            ("q", 1.0, {"tags": ""}),
            ("q", 9.0, {"tags": ["x", "y"]}),
            ("q", 5.0, {"tags": 7}),
        ),
        "tags",
    )
    assert found.select("value", "n_examples").rows() == [('["x", "y"]', 1), ("7", 1), (WITHOUT_VALUE, 3)]


def test_no_pairs_have_no_groups() -> None:
    assert group_sums(pairs(), "topic").is_empty()
