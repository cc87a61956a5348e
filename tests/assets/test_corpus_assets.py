"""training_examples and query_examples: what is stored of a source, what is set aside, and what is refused."""

import json

import polars as pl
import pytest

from lorif_assets.errors import SourceError
from lorif_assets.freshness.sources import stale_shards
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, REJECTED, TRAINING_EXAMPLES
from tests.conftest import QUERY_SET, ROWS_PER_SHARD, SHARDS, TinyProject


def test_every_usable_row_is_stored_in_the_order_of_its_file(tiny_project: TinyProject) -> None:
    rows = tiny_project.table(TRAINING_EXAMPLES).sort("shard", "row")
    for index, shard in enumerate(SHARDS):
        lines = (tiny_project.root / f"data/{index:05d}.jsonl").read_text().splitlines()[:ROWS_PER_SHARD]
        written = [json.loads(line) for line in lines]
        stored = rows.filter(pl.col("shard") == shard)
        assert stored["example_id"].to_list() == [row["id"] for row in written]
        assert stored["text"].to_list() == [row["text"] for row in written]
        assert [json.loads(metadata) for metadata in stored["metadata"]] == [{"topic": row["topic"]} for row in written]
        assert stored["row"].to_list() == list(range(ROWS_PER_SHARD))
        assert stored["shard_hash"].n_unique() == 1
    assert rows["shard_hash"].n_unique() == len(SHARDS)


def test_rows_that_cannot_be_used_are_stored_with_the_reason_and_counted(tiny_project: TinyProject) -> None:
    rejected = tiny_project.table(REJECTED, stage="training_examples").sort("row")
    assert rejected.select("part", "example_id", "row").rows() == [
        (SHARDS[2], f"{SHARDS[2]}/000012", 12),
        (SHARDS[2], "empty", 13),
    ]
    assert "malformed JSON" in rejected["reason"][0]
    assert "{not json" in rejected["excerpt"][0]
    assert rejected["reason"][1] == "text is empty"
    counts = [
        (figures["dagster/row_count"], figures["rejected_rows"])
        for figures in (tiny_project.figures("training_examples", shard) for shard in SHARDS)
    ]
    assert counts == [(12, 0), (12, 0), (12, 2)]


def test_a_row_that_was_mended_leaves_the_rejected_ones(private_project: TinyProject) -> None:
    file = private_project.root / "data/00002.jsonl"
    file.write_text(file.read_text().replace("{not json", json.dumps({"id": "mended", "text": "a file"})))
    private_project.run("training_examples", SHARDS[2])
    assert private_project.table(REJECTED, stage="training_examples")["example_id"].to_list() == ["empty"]
    assert "mended" in private_project.table(TRAINING_EXAMPLES, shard=SHARDS[2])["example_id"]


def test_the_metadata_show_the_first_rows_and_where_they_come_from(tiny_project: TinyProject) -> None:
    figures = tiny_project.figures("training_examples", SHARDS[1])
    assert figures["source"] == "data/00001.jsonl"
    assert "`doc1-0`" in figures["first_rows"]
    assert figures["bytes"] > 0


def test_a_shard_whose_rows_are_all_unusable_is_refused_and_the_table_stays(private_project: TinyProject) -> None:
    before = private_project.table(TRAINING_EXAMPLES, shard=SHARDS[1])
    (private_project.root / "data/00001.jsonl").write_text('{"id": "x", "text": ""}\n{"id": "y", "text": 3}')
    with pytest.raises(SourceError, match=r"none of 2 rows can be used \(row 0: text is empty; row 1: text is int"):
        private_project.run("training_examples", SHARDS[1])
    assert private_project.table(TRAINING_EXAMPLES, shard=SHARDS[1]).equals(before)
    assert private_project.table(REJECTED, part=SHARDS[1])["reason"].to_list() == [
        "text is empty",
        "text is int, not text",
    ]


def test_a_column_that_is_not_there_is_named(private_project: TinyProject) -> None:
    (private_project.root / "data/00001.jsonl").write_text('{"id": "x", "body": "a file"}')
    with pytest.raises(SourceError, match=r"no column 'text' \(columns\.text\)\. The columns there are: id, body"):
        private_project.run("training_examples", SHARDS[1])


def test_a_shard_that_left_its_source_is_named(private_project: TinyProject) -> None:
    (private_project.root / "data/00001.jsonl").unlink()
    with pytest.raises(SourceError, match=f"no source has the shard '{SHARDS[1]}' any more.*sources have {SHARDS[0]}"):
        private_project.run("training_examples", SHARDS[1])


def test_a_query_set_is_stored_under_its_files_name(tiny_project: TinyProject) -> None:
    rows = tiny_project.table(QUERY_EXAMPLES).sort("row")
    assert rows["query_set"].unique().to_list() == [QUERY_SET]
    assert rows.select("query_id", "prompt", "completion").row(0) == ("q0", "the with statement", " opens a file")
    assert tiny_project.figures("query_examples", QUERY_SET)["dagster/row_count"] == 3


def test_an_empty_query_set_is_refused_by_name(private_project: TinyProject) -> None:
    (private_project.root / "queries/empty.jsonl").write_text("")
    with pytest.raises(SourceError, match=r"'empty'.* is empty: it has no rows"):
        private_project.run("query_examples", "empty")


def test_a_query_set_whose_rows_are_all_unusable_is_refused_and_its_rows_stay(private_project: TinyProject) -> None:
    before = private_project.table(QUERY_EXAMPLES)
    (private_project.root / f"queries/{QUERY_SET}.jsonl").write_text('{"id": "q", "prompt": "a", "completion": ""}')
    with pytest.raises(SourceError, match="completion is empty"):
        private_project.run("query_examples", QUERY_SET)
    assert private_project.table(QUERY_EXAMPLES).equals(before)


def test_unusable_queries_are_set_aside_and_counted(private_project: TinyProject) -> None:
    with (private_project.root / f"queries/{QUERY_SET}.jsonl").open("a") as file:
        file.write('\n{"id": "q3", "prompt": "a", "completion": ""}')
    with pytest.raises(SourceError, match=f"query set '{QUERY_SET}': 1 of 4 rows are set aside.*completion is empty"):
        private_project.run("query_examples", QUERY_SET)
    project = private_project.with_settings(data={"max_rejected_share": 0.25})
    project.run("query_examples", QUERY_SET)
    assert project.table(REJECTED, stage="query_examples")["example_id"].to_list() == ["q3"]
    figures = project.figures("query_examples", QUERY_SET)
    assert (figures["rejected_rows"], figures["rejected_reasons"]) == (1, {"completion is empty": 1})
    assert project.table(QUERY_EXAMPLES).height == 3


def _break(project: TinyProject, shard: int, rows: int) -> None:
    """Leave the first rows of a source file without text."""
    for row in range(rows):
        project.edit_shard(shard, row, "")


def test_too_many_rows_set_aside_of_a_source_stop_the_run_and_what_is_stored_stays(
    private_project: TinyProject,
) -> None:
    before = private_project.table(TRAINING_EXAMPLES).sort("shard", "row")
    _break(private_project, 0, 2)
    # Of the 38 rows of the source, with the two that another shard has set aside, these are more than a tenth.
    with pytest.raises(
        SourceError, match="source 'docs': 4 of 38 rows are set aside so far, more than the share"
    ) as caught:
        private_project.run("training_examples", SHARDS[0])
    assert "text is empty (3)" in str(caught.value)
    assert "malformed JSON" in str(caught.value)
    assert private_project.table(TRAINING_EXAMPLES).sort("shard", "row").equals(before)
    stored = private_project.table(REJECTED, stage="training_examples", part=SHARDS[0])
    assert stored["example_id"].to_list() == ["doc0-0", "doc0-1"]
    assert set(private_project.stale("training_examples")) == {SHARDS[0]}


def test_a_bad_row_of_a_short_shard_stops_nothing_where_the_source_has_few_of_them(
    private_project: TinyProject,
) -> None:
    _break(private_project, 0, 1)
    private_project.run("training_examples", SHARDS[0])
    assert private_project.figures("training_examples", SHARDS[0])["rejected_reasons"] == {"text is empty": 1}


def test_a_shard_without_a_bad_row_is_stored_whatever_the_others_have(private_project: TinyProject) -> None:
    private_project.edit_shard(0, 0, "a file ends")
    project = private_project.with_settings(data={"max_rejected_share": 0})
    project.run("training_examples", SHARDS[0])
    assert project.stale("training_examples") == {}
    with pytest.raises(SourceError, match="source 'docs': 2 of 38 rows are set aside"):
        project.run("training_examples", SHARDS[2])


@pytest.mark.parametrize("bad_rows", [0, 1])
def test_a_shard_is_read_again_where_the_file_of_another_one_is_lost(
    private_project: TinyProject, bad_rows: int
) -> None:
    _break(private_project, 0, bad_rows)
    (lost,) = (private_project.root / "lake/training_examples" / f"shard={SHARDS[1]}").glob("*.parquet")
    lost.unlink()
    private_project.run("training_examples", SHARDS[0])
    assert private_project.figures("training_examples", SHARDS[0])["rejected_rows"] == bad_rows


def test_the_share_of_rows_set_aside_makes_nothing_out_of_date(tiny_project: TinyProject) -> None:
    project = tiny_project.with_settings(data={"max_rejected_share": 0.5})
    assert project.settings.recipe.score_hash == tiny_project.settings.recipe.score_hash
    for asset in ("training_examples", "query_examples", "gradient_factors", "query_scores"):
        assert project.stale(asset) == {}


@pytest.mark.parametrize(
    ("passages", "ids"),
    [
        ("file", ["notes/a.txt", "notes/b.TXT"]),
        ("paragraph", ["notes-a-00000/000000", "notes-a-00000/000001", "notes-b-00000/000000"]),
    ],
)
def test_a_folder_of_plain_text_is_stored_set_aside_and_followed(
    private_project: TinyProject, passages: str, ids: list[str]
) -> None:
    root = private_project.root
    (root / "notes").mkdir()
    (root / "notes/a.txt").write_text("a file fails\n\nby an error\n")
    (root / "notes/b.TXT").write_bytes(b"it ends" if passages == "file" else b"it ends\n\n\xff")
    if passages == "file":
        (root / "notes/c.txt").write_bytes(b"\xff")
    settings = root / "lorif.toml"
    source = f'[[sources]]\nname = "notes"\npath = "notes"\npassages = "{passages}"\n'
    settings.write_text(source + settings.read_text())
    project = TinyProject.open(root, private_project.instance).with_settings(data={"max_rejected_share": 0.5})

    def stale() -> set[str]:
        rows = project.table(TRAINING_EXAMPLES).select("shard", "source_version").unique()
        return set(stale_shards(project.settings, dict(rows.iter_rows())))

    wanted = sorted(stale())
    assert wanted == (["notes-00000"] if passages == "file" else ["notes-a-00000", "notes-b-00000"])
    for shard in wanted:
        project.run("training_examples", shard)
    stored = project.table(TRAINING_EXAMPLES).filter(pl.col("shard").str.starts_with("notes")).sort("shard", "row")
    assert stored["example_id"].to_list() == ids
    reasons = project.table(REJECTED, stage="training_examples", part=wanted[-1])["reason"].to_list()
    assert len(reasons) == 1
    assert "not UTF-8" in reasons[0]
    assert "a file fails" in project.figures("training_examples", wanted[0])["first_rows"]
    assert stale() == set()
    (root / "notes/a.txt").write_text("a file fails\n\nby another error\n")
    assert stale() == {wanted[0]}
