"""attribution_report: a page per checkpoint and query set, made from the scores that are stored."""

import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from lorif_assets.errors import MismatchError
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES, REPORTS
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

CHECKPOINT = CHECKPOINTS[0]
KEY = f"{CHECKPOINT}|{QUERY_SET}"
PARTITION = {"checkpoint": CHECKPOINT, "query_set": QUERY_SET}


def test_the_page_shows_every_query_with_its_leading_examples(tiny_project: TinyProject) -> None:
    (row,) = tiny_project.table(REPORTS, **PARTITION).to_dicts()
    page = Path(row["uri"]).read_text()
    leading = tiny_project.table(QUERY_SCORES, **PARTITION).filter(pl.col("rank") == 1)
    assert all(query in page for query in ("q0", "q1", "q2"))
    assert all(example in page for example in leading["example_id"])
    assert row["computed_from"] == tiny_project.table(QUERY_SUMMARIES, **PARTITION)["computed_from"][0]
    assert re.search(r"<p .*>Training data: 2 rows set aside: malformed JSON.*; text is empty \(1\)\.</p>", page)
    figures = tiny_project.figures("attribution_report", KEY)
    assert (figures["queries"], figures["examples"]) == (3, 36)
    assert figures["bytes"] == Path(row["uri"]).stat().st_size


def test_the_last_of_several_checkpoints_links_to_their_comparison(tiny_project: TinyProject) -> None:
    (where,) = tiny_project.table(REPORTS, checkpoint=CHECKPOINTS[1], query_set=QUERY_SET)["uri"]
    (link,) = re.findall(r'href="(\.\./comparison/[^"]+)"', Path(where).read_text())
    assert (Path(where).parent / link).is_file()


def test_pictures_are_drawn_into_the_page(private_project: TinyProject) -> None:
    replace(private_project, draws=True).run("attribution_report", KEY)
    (where,) = private_project.table(REPORTS, **PARTITION)["uri"]
    assert Path(where).read_text().count("data:image/png;base64,iVBOR") >= 2


def test_every_pair_shows_its_two_ends(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"top_k": "all"})
    project.run("query_scores", KEY)
    project.run("attribution_report", KEY)
    (where,) = project.table(REPORTS, **PARTITION)["uri"]
    page = Path(where).read_text()
    ends = project.table(QUERY_SCORES, **PARTITION).filter(pl.col("rank").is_in([1, 36]))["example_id"]
    assert all(example in page for example in ends)


def test_scores_of_another_recipe_are_refused_naming_both(private_project: TinyProject) -> None:
    project = private_project.with_settings(recipe={"top_k": 3})
    old, new = private_project.settings.recipe.score_hash, project.settings.recipe.score_hash
    with pytest.raises(
        MismatchError, match=f"under the recipe {old}, the settings are {new}; materialize `query_scores`"
    ):
        project.run("attribution_report", KEY)


def test_a_query_set_without_scores_is_refused(private_project: TinyProject) -> None:
    private_project.lake.replace(QUERY_SUMMARIES, PARTITION, QUERY_SUMMARIES.columns.empty_table())
    with pytest.raises(MismatchError, match=f"has no scores for '{QUERY_SET}'; materialize `query_scores` first"):
        private_project.run("attribution_report", KEY)


def test_the_reports_of_a_checkpoint_are_made_in_one_run(private_project: TinyProject) -> None:
    folder = private_project.root / "queries"
    (folder / "others.jsonl").write_text((folder / f"{QUERY_SET}.jsonl").read_text())
    private_project.update()
    keys = [f"{CHECKPOINTS[0]}|{query_set}" for query_set in (QUERY_SET, "others")]
    before = private_project.instance.get_runs_count()
    private_project.run("attribution_report", *keys)
    assert private_project.instance.get_runs_count() == before + 1
    pages = [Path(private_project.figures("attribution_report", key)["report"]) for key in keys]
    assert len(set(pages)) == 2
    assert all(page.is_file() for page in pages)
    link = private_project.figures("attribution_report", keys[0])["by_lorif_explore"]
    assert link == f"http://127.0.0.1:7411/reports/{CHECKPOINTS[0]}/{QUERY_SET}.html"
