"""Lakes that an earlier version of the project wrote (commit 8417265) are read as they are, and carried on.

The archive holds a project's data, queries, checkpoints and an encoder, with the times of its files, and three lakes: `svd`
(scores merged), `ekfac` (the default recipe, a byte budget, averaged checkpoints, Influcoder) and `paper`.
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from lorif_assets.assets.graph import assets_in_use
from lorif_assets.lake.attribution_tables import CHECKPOINTS as CHECKPOINT_ROWS
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES
from lorif_assets.project import Project
from tests.archives import unpack
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

ARCHIVE = "project_8417265.tar.xz"
NEWEST = CHECKPOINTS[-1]
KEY = f"{NEWEST}|{QUERY_SET}"
AS_IT_WAS = """
truncation = "completion_first"
prompt_completion = "apart"
append_eos = false
checkpoint_weights = "equal"
"""
"""What that version did before there were settings for it."""


@pytest.fixture(params=["svd", "ekfac", "paper"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TinyProject]:
    unpack(ARCHIVE, tmp_path)
    root = tmp_path / "stored_project"
    file = root / f"{request.param}.toml"
    file.write_text(file.read_text().replace("[recipe]", f"[recipe]{AS_IT_WAS}"))
    opened = Project.open(file)
    with dg.DagsterInstance.ephemeral() as instance:
        project = TinyProject(root, opened.settings, opened, instance)
        project.register_partitions()
        yield project


def scores(project: TinyProject) -> pl.DataFrame:
    found = project.table(QUERY_SCORES, checkpoint=NEWEST, query_set=QUERY_SET)
    return found.sort("query_id", "side", "rank")


def test_nothing_in_it_is_out_of_date(stored: TinyProject) -> None:
    out_of_date = {asset.name: dict(stored.stale(asset.name)) for asset in assets_in_use(stored.settings)}
    assert {name: partitions for name, partitions in out_of_date.items() if partitions} == {}


def test_all_is_out_of_date_where_examples_are_cut_by_another_rule(stored: TinyProject) -> None:
    cut_otherwise = stored.with_settings(recipe={"truncation": "keep_start"})
    # What is computed under a checkpoint waits for it.
    assert set(dict(cut_otherwise.stale("checkpoints"))) == set(stored.table(CHECKPOINT_ROWS)["checkpoint"])


def test_scores_computed_now_from_its_factors_and_curvature_are_those_it_holds(stored: TinyProject) -> None:
    before = scores(stored)
    assert before.height == 30
    partition = {"checkpoint": NEWEST, "query_set": QUERY_SET}
    for schema in (QUERY_SCORES, QUERY_SUMMARIES):
        stored.lake.replace(schema, partition, schema.columns.empty_table())
    stored.run("query_scores", KEY)
    after = scores(stored)
    assert before["relative_score"].null_count() == before.height
    assert after["relative_score"].null_count() == 0
    computed = ["score", "relative_score"]
    assert after.drop(computed).equals(before.drop(computed))
    # The order of summation is the processor's.
    assert after["score"].to_list() == pytest.approx(before["score"].to_list(), rel=1e-4)


def test_an_edited_shard_is_subtracted_from_its_curvature_and_added_again(stored: TinyProject) -> None:
    stored.edit_shard(0, 0, "another first sentence about files")
    updates = stored.update()
    factors = {key.partition("|")[2] for key in updates["gradient_factors"]}
    assert factors == {SHARDS[0]}
    curvature = "ekfac" if "ekfac_preconditioners" in updates else "svd"
    layers = sorted(updates[f"{curvature}_preconditioners"])
    for layer in layers:
        assert stored.figures(f"{curvature}_preconditioners", layer)["how"].startswith("updated")
    assert not stored.update()
