"""Scores of added shards merged into the last full scan: when, how close to a full scan, and when not."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES, RELATIVE_SCORES, SCORE_SCANS
from tests.conftest import CHECKPOINTS, QUERY_SET, TinyProject

CHECKPOINT = CHECKPOINTS[0]
KEY = f"{CHECKPOINT}|{QUERY_SET}"
PARTITION = {"checkpoint": CHECKPOINT, "query_set": QUERY_SET}
# A damping beside which the curvature hardly counts: the preconditioner does not move, whatever is added.
STILL = {"damping_rule": "absolute", "damping": 1e9}


def merging(project: TinyProject, **recipe: object) -> TinyProject:
    """The project with its scores of one checkpoint up to date under the merging recipe."""
    changed = project.with_settings(recipe={"added_data": "merged", **recipe}, active={"checkpoints": (CHECKPOINT,)})
    changed.update()
    return changed


def with_still_preconditioner(project: TinyProject) -> TinyProject:
    return project.with_settings(recipe={"added_data": "merged", **STILL}, active={"checkpoints": (CHECKPOINT,)})


@pytest.fixture(scope="module")
def scanned(tiny_project: TinyProject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a project whose one full scan under the merging recipe is done."""
    root = tmp_path_factory.mktemp("scanned") / "project"
    shutil.copytree(tiny_project.root, root, ignore=shutil.ignore_patterns("dagster"))
    with dg.DagsterInstance.ephemeral() as instance:
        project = with_still_preconditioner(TinyProject.open(root, instance))
        project.update()
        reason, rows = scan(project)
    assert reason.startswith("full scan: there is none of these queries, weights and recipe")
    assert rows == 36
    return root


@pytest.fixture
def still(scanned: Path, tmp_path: Path) -> Iterator[TinyProject]:
    """A copy of it for one test."""
    shutil.copytree(scanned, tmp_path / "project")
    with dg.DagsterInstance.ephemeral() as instance:
        project = with_still_preconditioner(TinyProject.open(tmp_path / "project", instance))
        project.register_partitions()
        yield project


def add_shard(project: TinyProject, name: str, text: str = "a new file opens and fails by an error") -> None:
    """Write a source file of one example: a shard of its own. A file `0` comes before all others, and moves their positions."""
    (project.root / f"data/{name}.jsonl").write_text(json.dumps({"id": f"new-{name}", "text": text}))


def scan(project: TinyProject) -> tuple[str, int]:
    figures = project.figures("query_scores", KEY)
    return figures["scan"], figures["examples_scanned"]


def exact(project: TinyProject) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Scores and summaries of a full scan of what is stored now."""
    project.with_settings(recipe={"added_data": "exact"}).run("query_scores", KEY)
    return results(project)


def results(project: TinyProject) -> tuple[pl.DataFrame, pl.DataFrame]:
    scores = project.table(QUERY_SCORES, **PARTITION).sort("query_id", "side", "rank")
    return scores.drop("recipe_hash", "computed_from"), project.table(QUERY_SUMMARIES, **PARTITION).sort("query_id")


def assert_same(
    found: tuple[pl.DataFrame, pl.DataFrame], expected: tuple[pl.DataFrame, pl.DataFrame], rel: float
) -> None:
    order = ["query_id", "side", "rank", "example_id", "shard"]
    assert found[0].select(order).equals(expected[0].select(order))
    assert found[0]["score"].to_list() == pytest.approx(expected[0]["score"].to_list(), rel=rel)
    for column in (
        "n_examples",
        "score_mean",
        "score_std",
        "score_abs_sum",
        "positive_sum",
        "top_10_share",
        "top_100_share",
    ):
        assert found[1][column].to_list() == pytest.approx(expected[1][column].to_list(), rel=10 * rel), column


def test_by_default_every_scan_is_full(tiny_project: TinyProject) -> None:
    assert scan(tiny_project) == ('full scan: the recipe says `added_data = "exact"`', 36)
    assert tiny_project.table(SCORE_SCANS).is_empty()


def test_only_added_shards_are_scanned_and_the_result_is_that_of_a_full_scan(still: TinyProject) -> None:
    add_shard(still, "00007")
    assert still.update()["query_scores"] == {KEY}
    reason, scanned = scan(still)
    assert reason.startswith("merged: 1 examples of 1 shards added since the last full scan")
    assert scanned == 1
    merged = results(still)
    assert merged[1]["n_examples"].to_list() == [37, 37, 37]
    assert_same(merged, exact(still), rel=1e-4)


def test_shards_added_one_after_another_are_all_merged_into_the_one_full_scan(still: TinyProject) -> None:
    full = still.table(SCORE_SCANS)
    for name in ("00007", "0", "00001a"):
        add_shard(still, name)
        still.update()
    assert scan(still)[0].startswith("merged: 3 examples of 3 shards")
    assert still.table(SCORE_SCANS).equals(full)
    assert_same(results(still), exact(still), rel=1e-4)


def test_a_moved_preconditioner_asks_for_a_full_scan(private_project: TinyProject) -> None:
    project = merging(private_project, merge_tolerance=1e-6)
    add_shard(project, "00007")
    project.update()
    reason, scanned = scan(project)
    assert reason.startswith("full scan: the preconditioner changed a query's probe scores by ")
    assert reason.endswith("allowed are 0.00%")
    assert scanned == 37


def test_within_the_tolerance_merged_scores_are_near_those_of_a_full_scan(private_project: TinyProject) -> None:
    project = merging(private_project, merge_tolerance=0.2, damping=20.0)
    add_shard(project, "00007")
    project.update()
    assert scan(project)[0].startswith("merged")
    merged, expected = results(project), exact(project)
    pairs = merged[0].join(expected[0], on=["query_id", "side", "example_id"])
    assert pairs.height >= 0.8 * expected[0].height
    error = (pairs["score"] - pairs["score_right"]).to_numpy()
    assert (error**2).sum() ** 0.5 < 0.2 * (pairs["score_right"].to_numpy() ** 2).sum() ** 0.5


def edit(project: TinyProject) -> None:
    project.edit_shard(1, 4, "an error closes the file")


def withdraw_rows(project: TinyProject) -> None:
    file = project.root / "data/00001.jsonl"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))


def add_much(project: TinyProject) -> None:
    rows = [json.dumps({"id": f"n{k}", "text": f"a file {k} opens and fails"}) for k in range(37)]
    (project.root / "data/00009.jsonl").write_text("\n".join(rows))


def lose_the_scan(project: TinyProject) -> None:
    add_shard(project, "00007")
    Path(project.lake.root, project.table(SCORE_SCANS)["state_uri"][0]).unlink()


def another_query(project: TinyProject) -> None:
    with (project.root / f"queries/{QUERY_SET}.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"id": "q9", "prompt": "a file", "completion": " ends"}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (edit, "1 shards changed or left, for instance docs-00001-00000"),
        (withdraw_rows, "1 shards changed or left, for instance docs-00001-00000"),
        (add_much, "more was added since the last one than it scanned"),
        (lose_the_scan, "there is none of these queries, weights and recipe to add to"),
        (another_query, "there is none of these queries, weights and recipe to add to"),
    ],
)
def test_anything_but_added_shards_asks_for_a_full_scan(
    still: TinyProject, change: Callable[[TinyProject], None], reason: str
) -> None:
    change(still)
    still.update()
    assert scan(still)[0] == f"full scan: {reason}"


def test_an_edited_shard_that_was_added_later_is_scanned_as_it_is_now(still: TinyProject) -> None:
    add_shard(still, "00007")
    still.update()
    add_shard(still, "00007", text="an error closes it when its block ends")
    still.update()
    assert scan(still)[1] == 1
    assert_same(results(still), exact(still), rel=1e-4)


def test_the_relative_ranking_is_merged_as_the_plain_one_is(still: TinyProject) -> None:
    for name in ("00007", "0"):
        add_shard(still, name)
        still.update()
    assert scan(still)[0].startswith("merged: 2 examples of 2 shards")
    order = ["query_id", "side", "rank"]
    merged = still.table(RELATIVE_SCORES, **PARTITION).sort(order)
    still.with_settings(recipe={"added_data": "exact"}).run("query_scores", KEY)
    expected = still.table(RELATIVE_SCORES, **PARTITION).sort(order)
    assert merged.select([*order, "example_id", "shard"]).equals(expected.select([*order, "example_id", "shard"]))
    for column in ("relative_score", "score"):
        assert merged[column].to_list() == pytest.approx(expected[column].to_list(), rel=1e-4)


def test_a_scan_of_a_version_without_relative_influence_is_done_again(still: TinyProject) -> None:
    row = still.table(SCORE_SCANS, **PARTITION)
    tensors = still.lake.read_tensors(row["state_uri"][0])
    before = {name: tensor for name, tensor in tensors.items() if "relative" not in name and "squared" not in name}
    uri = still.lake.write_tensors(f"scan_states/{CHECKPOINT}", before)
    still.lake.replace(SCORE_SCANS, PARTITION, row.with_columns(state_uri=pl.lit(uri)).to_arrow())
    add_shard(still, "00007")
    still.update()
    assert scan(still) == ("full scan: there is none of these queries, weights and recipe to add to", 37)
