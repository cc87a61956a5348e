"""Scores of methods, read back as matrices."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from lorif_assets.errors import MismatchError
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores, read_evaluated_scores
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES, METHOD_COSTS
from lorif_assets.lake.lake import Lake

_STORED: Mapping[str, Mapping[tuple[str, str], float]] = {
    "lorif": {("q1", "b"): 1.0, ("q1", "a"): 2.0, ("q2", "b"): 3.0, ("q2", "a"): 4.0},
    "bm25": {("q2", "a"): 5.0, ("q2", "c"): 6.0},
}
_VERSIONS = dict.fromkeys(_STORED, "1")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake with the scores of two methods, of which one has another query and other examples."""
    lake = Lake(root=str(tmp_path / "lake"))
    for method, scores in _STORED.items():
        partition = {"checkpoint": "c", "query_set": "s", "method": method}
        constants = {name: pl.lit(value) for name, value in {**partition, "computed_from": "1"}.items()}
        rows = [
            {"query_id": query, "example_id": example, "score": score} for (query, example), score in scores.items()
        ]
        pairs = pl.DataFrame(rows, schema_overrides={"score": pl.Float32})
        costs = ("bytes_per_example", "setup_seconds", "query_seconds", "shared_bytes")
        cost = pl.DataFrame({**{name: [0.0] for name in costs}, "n_examples": [2], "n_queries": [2]})
        lake.replace(EVALUATED_SCORES, partition, pairs.with_columns(**constants).to_arrow())
        lake.replace(METHOD_COSTS, partition, cost.with_columns(**constants).to_arrow())
    return lake


def read(lake: Lake) -> EvaluatedScores:
    return read_evaluated_scores(lake, "c", "s", _VERSIONS)


def test_all_methods_have_the_same_queries_and_examples(lake: Lake) -> None:
    found = read(lake)
    assert (found.query_ids, found.example_ids) == (["q1", "q2"], ["a", "b", "c"])
    np.testing.assert_array_equal(found.by_method["lorif"], [[2, 1, 0], [4, 3, 0]])
    np.testing.assert_array_equal(found.by_method["bm25"], [[0, 0, 0], [5, 0, 6]])


def test_the_pairs_of_one_method_are_in_memory_at_a_time(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a hundred thousand examples by a dozen methods would take gigabytes."""
    heights, whole = [], Lake.read

    def counted(self: Lake, schema: object, *columns: object, **filters: object) -> pl.DataFrame:
        rows: pl.DataFrame = whole(self, schema, *columns, **filters)  # type: ignore[arg-type]
        heights.append(rows.height)
        return rows

    monkeypatch.setattr(Lake, "read", counted)
    read(lake)
    assert max(heights) == max(map(len, _STORED.values()))


def test_scores_of_another_version_are_refused(lake: Lake) -> None:
    with pytest.raises(MismatchError, match="the scores of bm25 at 'c' for the query set 's' are out of date"):
        read_evaluated_scores(lake, "c", "s", {**_VERSIONS, "bm25": "2"})
