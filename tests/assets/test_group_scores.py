"""group_scores: influence summed over all examples that share a value, kept only where columns are named."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import lorif_assets
from lorif_assets.lake.attribution_tables import GROUP_SCORES, QUERY_SUMMARIES, REPORTS
from lorif_assets.mathematics.scores.shrinkage import shrunk
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

CHECKPOINT = CHECKPOINTS[-1]
KEY = f"{CHECKPOINT}|{QUERY_SET}"
PARTITION = {"checkpoint": CHECKPOINT, "query_set": QUERY_SET}


def test_they_are_not_kept_unless_asked_for(tiny_project: TinyProject) -> None:
    assert not tiny_project.stale("group_scores")


def test_sums_are_over_all_examples_and_shown_in_the_report(private_project: TinyProject) -> None:
    groups = {"columns": ("topic",), "shrunk": False}
    project = private_project.with_settings(groups=groups, active={"checkpoints": (CHECKPOINT,)})
    assert set(project.stale("group_scores")) == {KEY}
    project.update()
    assert not project.stale("group_scores")
    rows = project.table(GROUP_SCORES, **PARTITION)
    of_query = rows.group_by("query_id").agg(pl.col("n_examples").sum(), pl.col("score_sum").sum()).sort("query_id")
    summaries = project.table(QUERY_SUMMARIES, **PARTITION).sort("query_id")
    assert of_query["n_examples"].to_list() == [36, 36, 36]
    totals = (summaries["score_mean"] * summaries["n_examples"]).to_list()
    assert of_query["score_sum"].to_list() == pytest.approx(totals, rel=1e-3, abs=1e-3)
    assert set(rows["value"]) == {"with", "files"}
    (where,) = project.table(REPORTS, **PARTITION)["uri"]
    assert Path(where).read_text().count('<details class="groups">') == 3
    assert rows["noise_share"].null_count() == rows.height
    assert set(project.with_settings(groups={"columns": ("other",)}).stale("group_scores")) == {KEY}


def test_shrunk_sums_are_of_posterior_means_and_say_how_much_is_noise(private_project: TinyProject) -> None:
    active = {"checkpoints": (CHECKPOINT,)}
    private_project.with_settings(groups={"columns": ("topic",), "shrunk": False}, active=active).update()
    project = private_project.with_settings(groups={"columns": ("topic",)}, active=active)
    assert set(project.stale("group_scores")) == {KEY}
    project.run("group_scores", KEY)
    assert not project.stale("group_scores")
    after = project.table(GROUP_SCORES, **PARTITION).sort("query_id", "value")
    (share,) = after["noise_share"].unique().to_list()
    assert 0 < share < 1
    with lorif_assets.open(private_project.root / "lorif.toml") as opened:
        answer = opened.attribute_stored_query(QUERY_SET, "q0", checkpoint=CHECKPOINT, top_k="all")
    scores = answer.table["score"].to_numpy()
    of_first = after.filter(pl.col("query_id") == "q0")
    assert of_first["score_sum"].sum() == pytest.approx(shrunk(scores[np.newaxis], share).sum(), rel=1e-3, abs=1e-3)
    assert of_first["n_examples"].sum() == len(scores)
    project.run("attribution_report", KEY)
    (where,) = project.table(REPORTS, **PARTITION)["uri"]
    said = f"less the noise of storing scores, {100 * share:.0f} % of their mean square"
    assert Path(where).read_text().count(said) == 3
    # The rankings of single examples are left as they are.
    assert not project.stale("query_scores")
