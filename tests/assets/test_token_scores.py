"""token_scores: what single tokens contributed to leading scores, kept only where the settings ask for it."""

from pathlib import Path

import polars as pl
import pytest

from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES, REPORTS, TOKEN_SCORES
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

CHECKPOINT = CHECKPOINTS[-1]
KEY = f"{CHECKPOINT}|{QUERY_SET}"
PARTITION = {"checkpoint": CHECKPOINT, "query_set": QUERY_SET}
PAIR = ["query_id", "shard", "example_id"]


@pytest.fixture
def project(private_project: TinyProject) -> TinyProject:
    return private_project.with_settings(
        token_scores={"enabled": True, "top_k": 2}, active={"checkpoints": (CHECKPOINT,)}
    )


def test_they_are_not_kept_unless_asked_for(tiny_project: TinyProject) -> None:
    assert not tiny_project.stale("token_scores")
    assert tiny_project.table(TOKEN_SCORES).is_empty()


def test_each_side_s_tokens_sum_to_the_score_of_uncompressed_gradients(project: TinyProject) -> None:
    assert set(project.stale("token_scores")) == {KEY}
    project.run("token_scores", KEY)
    assert not project.stale("token_scores")
    rows = project.table(TOKEN_SCORES, **PARTITION)
    sums = rows.group_by(*PAIR, "side").agg(pl.col("score").sum(), pl.col("exact_score").first())
    assert sums["score"].to_list() == pytest.approx(sums["exact_score"].to_list(), rel=1e-3, abs=1e-4)
    listed = project.table(QUERY_SCORES, **PARTITION).filter(pl.col("rank") <= 2)
    pairs = rows.select(*PAIR, "stored_score").unique().sort(PAIR)
    expected = listed.select(*PAIR, stored_score="score").unique().sort(PAIR)
    assert pairs.equals(expected)
    figures = project.figures("token_scores", KEY)
    assert figures["pairs"] == pairs.height
    assert 0 < figures["relative_gap_to_stored_scores"] < 1


def test_the_gap_to_stored_scores_is_left_out_where_these_are_averaged_over_checkpoints(
    private_project: TinyProject,
) -> None:
    project = private_project.with_settings(
        token_scores={"enabled": True, "top_k": 2},
        active={"checkpoints": "all"},
        recipe={"averaged_checkpoints": len(CHECKPOINTS)},
    )
    project.update()
    first, last = (project.figures("token_scores", f"{name}|{QUERY_SET}") for name in (CHECKPOINTS[0], CHECKPOINT))
    assert "relative_gap_to_stored_scores" in first
    assert "relative_gap_to_stored_scores" not in last
    assert last["pairs"] > 0


def test_every_token_is_there_and_those_without_loss_have_no_score(project: TinyProject) -> None:
    project.run("token_scores", KEY)
    rows = project.table(TOKEN_SCORES, **PARTITION).filter((pl.col("query_id") == "q0") & (pl.col("side") == "query"))
    (first, *_) = rows.sort("position").partition_by(*PAIR, maintain_order=True)
    assert "".join(first["token"]) == "the with statement opens a file"
    without = first.filter(pl.col("score").is_null())
    assert "".join(without["token"]) == "the with statement"


def test_other_scores_and_more_pairs_put_them_out_of_date(project: TinyProject) -> None:
    project.run("token_scores", KEY)
    more = project.with_settings(token_scores={"top_k": 3})
    assert set(more.stale("token_scores")) == {KEY}
    summaries = project.table(QUERY_SUMMARIES, **PARTITION)
    assert project.table(TOKEN_SCORES, **PARTITION)["computed_from"].unique().to_list() == [
        project.settings.token_scores.version(summaries["computed_from"][0])
    ]


def test_the_report_is_made_again_and_colours_the_tokens(project: TinyProject) -> None:
    assert set(project.stale("attribution_report")) == {KEY}
    project.update()
    assert not project.stale("attribution_report")
    (where,) = project.table(REPORTS, **PARTITION)["uri"]
    page = Path(where).read_text()
    assert page.count('<details class="tokens">') == 12
    assert "uncompressed gradients" in page
