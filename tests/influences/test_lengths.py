"""Values of a whole ranking by the length of examples."""

from pathlib import Path

import polars as pl
import pytest

from lorif_assets.influences.lengths import by_length
from lorif_assets.influences.ranked import Ranked
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS
from lorif_assets.lake.lake import Lake
from tests.stored_influences import put

N = 25


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Examples of 1, 2, 3 ... tokens, in an order that is not that of their lengths."""
    lake = Lake(str(tmp_path))
    order = [(7 * at) % N for at in range(N)]
    rows = [
        {"checkpoint": "late", "shard": "s", "example_id": f"e{at}", "row": row, "n_target_tokens": at + 1}
        for row, at in enumerate(order)
    ]
    put(lake, GRADIENT_FACTORS, rows)
    return lake


def ranked(n_listed: int) -> Ranked:
    # The longer, the larger, for and against in turn.
    values = [float((-1) ** at * (at + 1)) for at in range(n_listed)]
    rows = pl.DataFrame({"shard": "s", "example_id": [f"e{at}" for at in range(n_listed)], "value": values})
    return Ranked(rows.with_columns(side=pl.lit("all"), rank=1), N, None)


def test_of_a_whole_ranking_the_mean_size_is_told_for_as_many_examples_of_each_length(lake: Lake) -> None:
    found = by_length(lake, "late", ranked(N))
    assert [one.n_examples for one in found] == [3] * 5 + [2] * 5
    assert [(one.low, one.high) for one in found][:2] == [(1, 3), (4, 6)]
    assert found[-1].high == N
    assert [one.mean_magnitude for one in found][:2] == [2.0, 5.0]


def test_few_examples_are_a_bin_each_and_a_part_of_a_ranking_says_nothing(lake: Lake) -> None:
    few = ranked(3)
    assert [one.n_examples for one in by_length(lake, "late", few)] == [1, 1, 1]
    listed = Ranked(few.rows.with_columns(side=pl.lit("highest")), N, None)
    assert by_length(lake, "late", listed) == ()
