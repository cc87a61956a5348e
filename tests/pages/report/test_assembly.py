"""What a report shows of the tables, in both ways that scores are stored."""

import polars as pl

from lorif_assets.attribution.scores.stored_rankings import leading_rows
from lorif_assets.pages.report.assembly import speaking


def rows(side: str, scores: list[float]) -> list[dict[str, object]]:
    return [
        {"query_id": "q", "side": side, "rank": rank, "example_id": f"{side}{rank}", "shard": "s", "score": score}
        for rank, score in enumerate(scores, start=1)
    ]


def frame(found: list[dict[str, object]]) -> pl.DataFrame:
    return pl.DataFrame(found, schema_overrides={"rank": pl.Int32})


def test_both_ends_of_a_full_ranking_are_shown() -> None:
    shown = leading_rows(frame(rows("all", [float(-n) for n in range(30)])), 10)
    best = shown.filter(pl.col("side") == "highest").sort("shown_rank")
    worst = shown.filter(pl.col("side") == "lowest").sort("shown_rank")
    assert best["score"].to_list() == [float(-n) for n in range(10)]
    assert worst["score"].to_list() == [float(-n) for n in range(29, 19, -1)]


def test_stored_extremes_are_shown_as_they_are() -> None:
    stored = frame(rows("highest", [3.0, 2.0]) + rows("lowest", [-3.0, -2.0]))
    shown = leading_rows(stored, 10)
    assert set(shown["example_id"]) == set(stored["example_id"])
    assert shown["shown_rank"].to_list() == shown["rank"].to_list()


def test_the_lowest_scores_are_opponents_only_where_they_are_negative() -> None:
    stored = frame(rows("highest", [3.0, 2.0, -1.0]) + rows("lowest", [-1.0, 0.0, 2.0]))
    assert speaking(stored, "score")["example_id"].to_list() == ["highest1", "highest2", "lowest1"]
