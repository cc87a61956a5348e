"""Selecting training data by the ids of rows."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lorif_assets
from lorif_assets.config.settings import CONFIG_NAME
from lorif_assets.errors import NotStoredError, SettingsError
from tests.conftest import SHARDS, TinyProject

N_EXAMPLES = 36


@pytest.fixture(scope="module")
def opened(tiny_project):
    with lorif_assets.open(tiny_project.root / CONFIG_NAME) as project:
        yield project


def names(selection):
    return selection.rows["example_id"].to_list()


def test_rows_are_taken_by_id_or_with_their_shard_in_the_order_of_the_data_each_once(opened):
    selection = opened.select(ids=["doc1-2", f"{SHARDS[0]}/doc0-1", "doc0-1"])
    assert names(selection) == ["doc0-1", "doc1-2"]
    assert selection.rows["value"].to_list() == [None, None]
    assert selection.of == {"docs": N_EXAMPLES}


def test_everything_but_them_is_taken(opened):
    selection = opened.select(ids=["doc1-2", "doc0-1"], exclude=True)
    assert selection.rows.height == N_EXAMPLES - 2
    assert not {"doc1-2", "doc0-1"} & {*names(selection)}


def test_they_come_from_a_file_and_are_written_as_their_source_has_them_with_how_many_there_were(opened, tmp_path):
    (tmp_path / "ids.txt").write_text("doc0-1\ndoc2-3\n")
    lineage = opened.select(ids=tmp_path / "ids.txt").write(tmp_path / "picked.parquet")
    assert pq.read_table(tmp_path / "picked.parquet")["id"].to_pylist() == ["doc0-1", "doc2-3"]
    assert lineage["command"] == "lorif select --ids ids.txt"
    assert lineage["ids"]["number"] == 2
    assert lineage == json.loads((tmp_path / "picked.lineage.json").read_text())
    assert "checkpoint" not in lineage


def test_nothing_has_to_be_attributed(private_project):
    for table in ("gradient_factors", "query_scores", "checkpoints"):
        shutil.rmtree(private_project.root / "lake" / table)
    with lorif_assets.open(private_project.root / CONFIG_NAME) as project:
        assert names(project.select(ids="doc0-1")) == ["doc0-1"]


def test_ids_that_are_not_there_are_named_and_nothing_is_selected(opened):
    for exclude in (False, True):
        with pytest.raises(
            NotStoredError, match="2 of 3 ids are of no row of the stored training data: 'gone', 'doc9'"
        ):
            opened.select(ids=["gone", "doc0-1", "doc9"], exclude=exclude)
    with pytest.raises(NotStoredError, match="and 7 more"):
        opened.select(ids=[f"gone-{k}" for k in range(12)])


def test_where_two_sources_share_an_id_the_shard_has_to_be_named(private_project):
    more = private_project.root / "more"
    more.mkdir()
    pq.write_table(
        pa.table({"id": ["doc0-1", "other"], "text": ["a file opens", "the block ends"]}), more / "00000.parquet"
    )
    settings = private_project.root / CONFIG_NAME
    other = '[[sources]]\nname = "more"\npath = "more"\ncolumns = { id = "id", text = "text" }\n\n'
    settings.write_text(other + settings.read_text())
    project = TinyProject.open(private_project.root, private_project.instance)
    project.register_partitions()
    project.run("training_examples", "more-00000-00000")
    with lorif_assets.open(settings) as opened:
        with pytest.raises(SettingsError, match=r"'doc0-1' is the id of 2 rows.*give the shard too, as .+/doc0-1"):
            opened.select(ids=["doc0-1"])
        both = opened.select(ids=["more-00000-00000/doc0-1", "other"])
        assert both.rows.select("source", "example_id").rows() == [("more", "doc0-1"), ("more", "other")]
        assert opened.select(ids=["doc0-1"], sources="docs").rows["source"].to_list() == ["docs"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"ids": ["doc0-1"], "top": 3}, "name one, not top and ids"),
        ({"ids": ["doc0-1"], "by": "topic", "without_duplicates": True}, "leave `by` and `without_duplicates` out"),
        ({"ids": ["doc0-1"], "query_sets": "questions"}, "nothing is ranked: leave `query_sets` out"),
        ({"ids": ["doc0-1"], "sources": "others"}, "there is no source 'others'"),
    ],
)
def test_what_goes_with_a_ranking_is_refused(opened, arguments, expected):
    with pytest.raises(lorif_assets.LorifError, match=expected):
        opened.select(**arguments)
