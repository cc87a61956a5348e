"""Selecting training data by their influence on stored queries."""

import json
import shutil

import dagster as dg
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import lorif_assets
from lorif_assets.config.settings import CONFIG_NAME
from lorif_assets.data.written_rows import LINEAGE_KEY
from lorif_assets.errors import MismatchError, NotStoredError, SettingsError
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from tests.conftest import CHECKPOINTS, QUERY_SET, SHARDS, TinyProject

NEWEST = CHECKPOINTS[1]
N_EXAMPLES = 36


@pytest.fixture(scope="module")
def opened(tiny_project):
    with lorif_assets.open(tiny_project.root / CONFIG_NAME) as project:
        yield project


@pytest.fixture(scope="module")
def every(opened):
    """The scores of every pair: query -> frame of shard, example_id, score and relative_score, in one order."""
    scores = {}
    for query in ("q0", "q1", "q2"):
        answer = opened.attribute_stored_query(QUERY_SET, query, top_k="all")
        plain = answer.table.select("shard", "example_id", "score")
        relative = opened.attribute_stored_query(QUERY_SET, query, top_k=N_EXAMPLES).relative
        ranked = relative.select("shard", "example_id", "relative_score").unique(["shard", "example_id"])
        scores[query] = plain.join(ranked, on=["shard", "example_id"]).sort("shard", "example_id")
    return scores


def expected(every, column, **weights):
    rows = next(iter(every.values())).select("shard", "example_id")
    standard = {query: scores[column].to_numpy() / scores[column].to_numpy().std() for query, scores in every.items()}
    total = sum(weight * standard[query] for query, weight in weights.items())
    return rows.with_columns(value=pl.Series(total / sum(map(abs, weights.values()))))


def ids(frame):
    return set(frame.select("shard", "example_id").iter_rows())


@pytest.mark.parametrize(("ranking", "column"), [("plain", "score"), ("relative", "relative_score")])
def test_the_top_is_what_the_queries_scores_lead_to_together(opened, every, ranking, column):
    wanted = expected(every, column, q0=1.0, q1=1.0, q2=1.0).sort("value", descending=True)
    selection = opened.select(QUERY_SET, top="25%", ranking=ranking)
    assert ids(selection.rows) == ids(wanted.head(9))
    found = selection.rows.join(wanted, on=["shard", "example_id"], suffix="_wanted")
    assert found["value"].to_list() == pytest.approx(found["value_wanted"].to_list(), rel=1e-3, abs=1e-4)
    assert selection.rows.select("shard", "row").rows() == sorted(selection.rows.select("shard", "row").rows())
    bottom = opened.select(bottom=9, ranking=ranking)
    assert ids(bottom.rows) == ids(wanted.tail(9))


def test_all_but_an_end_is_what_is_left(opened):
    top = opened.select(top="25%").rows
    rest = opened.select(top="25%", exclude=True).rows
    assert top.height + rest.height == N_EXAMPLES
    assert not ids(top) & ids(rest)


def test_query_sets_and_queries_have_weights(private_project, every):
    queries = private_project.root / f"queries/{QUERY_SET}.jsonl"
    rows = [json.loads(line) for line in queries.read_text().splitlines()]
    for row, weight in zip(rows, (2, -1, 0), strict=True):
        row["weight"] = weight
    queries.write_text("\n".join(map(json.dumps, rows)))
    private_project.update()
    wanted = expected(every, "score", q0=2.0, q1=-1.0).sort("value", descending=True)
    with lorif_assets.open(private_project.root / CONFIG_NAME) as project:
        assert ids(project.select(top=5, query_weight="weight").rows) == ids(wanted.head(5))
        assert ids(project.select({QUERY_SET: -1.0}, top=5, query_weight="weight").rows) == ids(wanted.tail(5))
        with pytest.raises(SettingsError, match="no number in the column 'size' to be weighted by: it has weight"):
            project.select(top=5, query_weight="size")


def test_single_queries_of_a_set_can_be_selected_for(opened, every):
    wanted = expected(every, "score", q1=1.0).sort("value", descending=True)
    selection = opened.select(QUERY_SET, queries="q1", top=5)
    assert ids(selection.rows) == ids(wanted.head(5))
    assert selection.lineage["query_sets"][QUERY_SET]["weights"] == {"q1": 1.0}
    with pytest.raises(
        NotStoredError, match=r"no query 'q9' of 'questions' is scored at .*begin with 'q0', 'q1', 'q2'"
    ):
        opened.select(QUERY_SET, queries=["q9"], top=5)


def test_hybrid_joins_the_ranks_of_influence_and_of_shared_words(opened):
    values = opened.select(top="100%", ranking="hybrid").rows
    relative = opened.select(top="100%", ranking="relative").rows
    found = values.join(relative, on=["shard", "example_id"], suffix="_relative")
    agreement = np.corrcoef(found["value"].rank().to_numpy(), found["value_relative"].rank().to_numpy())[0, 1]
    assert 0.2 < agreement < 1


def test_of_each_group_as_much_is_taken(opened):
    selection = opened.select(top=3, by="topic")
    stored = opened.project.lake.read(TRAINING_EXAMPLES, ["shard", "example_id", "metadata"])
    topics = selection.rows.join(stored, on=["shard", "example_id"])["metadata"].map_elements(
        lambda text: json.loads(text)["topic"], return_dtype=pl.String
    )
    assert topics.value_counts().sort("metadata").rows() == [("files", 3), ("with", 3)]
    with pytest.raises(
        NotStoredError, match="no training example has the metadata column 'author' to select by; there are topic"
    ):
        opened.select(top=3, by="author")


def test_near_duplicates_are_left_out_and_others_take_their_place(opened):
    texts = dict(opened.project.lake.read(TRAINING_EXAMPLES, ["example_id", "text"]).iter_rows())
    plain, single = (opened.select(top="100%", without_duplicates=flag) for flag in (False, True))
    said = [texts[name] for name in single.rows["example_id"]]
    assert len(said) == len(set(said)) == N_EXAMPLES - single.n_repeats
    assert set(said) == {texts[name] for name in plain.rows["example_id"]} or single.n_repeats
    few = opened.select(top=6, without_duplicates=True)
    assert few.rows.height == min(6, single.rows.height)


def test_weights_take_the_place_of_leaving_out(opened):
    weighted = opened.select(weights="weight").rows
    assert weighted.height == N_EXAMPLES
    assert weighted["weight"].mean() == pytest.approx(1.0)
    order = weighted.sort("value")["weight"].to_list()
    assert order == sorted(order)


def test_a_selection_is_read_as_a_source_of_a_new_project_with_the_same_rows(opened, tiny_project, tmp_path):
    file = tmp_path / "new" / "picked.parquet"
    selection = opened.select(top="30%")
    lineage = selection.write(file)
    root = file.parent
    settings = (tiny_project.root / CONFIG_NAME).read_text()
    (root / CONFIG_NAME).write_text(settings.replace('path = "data"', 'path = "picked.parquet"'))
    for folder in ("queries", "checkpoints"):
        shutil.copytree(tiny_project.root / folder, root / folder)
    with dg.DagsterInstance.ephemeral() as instance:
        new = TinyProject.open(root, instance)
        new.run("training_examples", "docs-00000")
        rows = new.table(TRAINING_EXAMPLES).sort("row")
    columns = ["example_id", "format", "text", "content_hash", "metadata"]
    stored = opened.project.lake.read(TRAINING_EXAMPLES, [*columns, "shard", "row"])
    wanted = selection.rows.select("shard", "row").join(stored, on=["shard", "row"], how="left", maintain_order="left")
    assert rows.select(columns).equals(wanted.select(columns))
    assert pq.read_schema(file).names == ["id", "text", "topic"]
    assert json.loads((root / "picked.lineage.json").read_text()) == lineage
    assert json.loads(pq.read_schema(file).metadata[LINEAGE_KEY.encode()]) == lineage


def test_the_lineage_says_what_was_taken_of_what_and_by_what(opened, tiny_project):
    lineage = opened.select({QUERY_SET: 2.0}, bottom="50%", exclude=True, by="topic").lineage
    assert lineage["command"] == (
        f"lorif select --query-set {QUERY_SET}=2 --checkpoint {NEWEST} --ranking plain --bottom 50% --by topic --exclude"
    )
    assert lineage["checkpoint"]["name"] == NEWEST
    assert lineage["query_sets"][QUERY_SET]["weights"] == {"q0": 2.0, "q1": 2.0, "q2": 2.0}
    assert lineage["recipe_hash"] == tiny_project.settings.recipe.score_hash
    assert lineage["lake"]["versions"].keys() >= {"training_examples", "gradient_factors", "svd_preconditioners"}
    assert (lineage["rows"], lineage["of"]) == (18, N_EXAMPLES)
    assert lineage["sources"]["docs"] == {
        "path": "data",
        "columns": {"id": "id", "text": "text"},
        "rows": 18,
        "of": N_EXAMPLES,
    }


def test_what_is_there_is_not_written_over(opened, tmp_path):
    selection = opened.select(top=3)
    (tmp_path / "kept.parquet").write_text("mine")
    (tmp_path / "other.lineage.json").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for name in ("kept.parquet", "other.parquet", "full"):
        with pytest.raises(SettingsError, match="is there already, and is not written over"):
            selection.write(tmp_path / name)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_folder_has_a_file_for_each_source_and_one_file_takes_one_source(private_project, tmp_path):
    settings = private_project.root / CONFIG_NAME
    # One of the three shards is a source of its own; its name is what it was.
    text = settings.read_text().replace('path = "data"', 'path = "data/*[01].jsonl"')
    more = '[[sources]]\nname = "docs-00002"\npath = "data/00002.jsonl"\ncolumns = { id = "id", text = "text" }\n'
    settings.write_text(more + text)
    with lorif_assets.open(settings) as project:
        selection = project.select(top="50%", by="topic")
        with pytest.raises(SettingsError, match=r"of 2 sources \(docs, docs-00002\).*name a folder"):
            selection.write(tmp_path / "both.parquet")
        (tmp_path / "both").mkdir()
        files = selection.write(tmp_path / "both")["files"]
        assert files == {"docs": "docs.parquet", "docs-00002": "docs-00002.parquet"}
        found = {name: pq.read_table(tmp_path / "both" / file)["id"].to_pylist() for name, file in files.items()}
        rows = selection.rows
        assert found == {name: rows.filter(source=name)["example_id"].to_list() for name in found}
        assert (tmp_path / "both.lineage.json").is_file()
        one = project.select(top=2, sources=["docs"])
        assert (one.of, set(one.rows["shard"])) == ({"docs": 24}, set(one.rows["shard"]) & set(SHARDS[:2]))
        with pytest.raises(SettingsError, match="there is no source 'web'; the settings have docs-00002, docs"):
            project.select(top=2, sources=["web"])


def test_shards_that_no_source_has_any_more_are_told_and_left_out(private_project):
    (private_project.root / "data/00001.jsonl").unlink()
    with lorif_assets.open(private_project.root / CONFIG_NAME) as project:
        selection = project.select(top="100%")
    assert (selection.rows.height, selection.n_unread) == (24, 12)


def test_a_source_that_changed_since_it_was_attributed_is_not_written(private_project, tmp_path):
    private_project.edit_shard(0, 0, "a file closes by an error")
    with lorif_assets.open(private_project.root / CONFIG_NAME) as project:
        selection = project.select(top="100%")
        with pytest.raises(MismatchError, match=f"{SHARDS[0]}.*has changed since it was attributed.*lorif materialize"):
            selection.write(tmp_path / "out" / "rows.parquet")
    assert list((tmp_path / "out").iterdir()) == []


def test_scores_of_what_a_shard_held_before_select_nothing(private_project):
    private_project.edit_shard(1, 0, "a file closes by an error")
    private_project.run("training_examples", SHARDS[1])
    with (
        lorif_assets.open(private_project.root / CONFIG_NAME) as project,
        pytest.raises(MismatchError, match=f"{SHARDS[1]}' was read again since '{NEWEST}' was attributed"),
    ):
        project.select(top=3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "name one, not none"),
        ({"top": 3, "bottom": 3}, "name one, not top and bottom"),
        ({"weights": "w", "exclude": True}, "`weights` leave nothing out"),
        ({"top": "lots"}, "an amount is a share"),
        ({"top": 3, "ranking": "bm25"}, "one of plain, relative, hybrid"),
        ({"top": 3, "query_sets": {QUERY_SET: 0.0}}, "the weight of every query is 0"),
        ({"top": 3, "query_sets": {QUERY_SET: float("nan")}}, "'q0' of 'questions' would have the weight nan"),
        ({"top": 3, "query_sets": "others"}, "no scores of the queries that the set 'others' has now"),
    ],
)
def test_what_cannot_be_selected_is_refused_with_what_can(opened, arguments, expected):
    with pytest.raises(lorif_assets.LorifError, match=expected):
        opened.select(**arguments)
