"""An explorer whose lake and settings change while it is open."""

import shutil
from pathlib import Path

import polars as pl
import pytest
from starlette.testclient import TestClient

from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.errors import LorifError
from lorif_assets.explorer import checkpoint_folders
from lorif_assets.explorer.answers import Answers
from lorif_assets.explorer.application import application
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.mcp_tools import TOOLS, called
from lorif_assets.explorer.query_files import QueryFiles
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.remembered_rows import RememberingLake
from tests.conftest import CHECKPOINTS
from tests.stored_influences import LATE, SET, SHARD, put, stored_influences

PAGES = ("/", "/query", "/groups?column=topic", "/movement", "/trust")
ANSWERS = ("queries", "influences", "groups", "movement")


@pytest.fixture
def settings(tmp_path):
    file = tmp_path / "lorif.toml"
    file.write_text("")
    return file


@pytest.fixture
def lake(tmp_path):
    return stored_influences(tmp_path / "lake")


@pytest.fixture
def explorer(lake, project, settings):
    remembering = RememberingLake(lake.root, look_every=0.0)
    explorer = Explorer("a", Recipe(), remembering, Answers(project, remembering), settings=settings)
    yield explorer
    explorer.answers.close()


@pytest.fixture
def client(explorer):
    with TestClient(application(explorer), base_url="http://127.0.0.1:7411") as client:
        yield client


def notices(client):
    return [client.get(f"/api/{name}").json()["notice"] for name in ANSWERS]


def edit(lake, text):
    """Have the shard of all examples read again, with another text in one of them."""
    rows = lake.read(TRAINING_EXAMPLES).with_columns(
        text=pl.when(pl.col("example_id") == "fox").then(pl.lit(text)).otherwise("text"), shard_hash=pl.lit(text)
    )
    lake.replace(TRAINING_EXAMPLES, {"shard": SHARD}, rows.to_arrow())


def test_what_is_up_to_date_has_no_notice(client):
    assert notices(client) == [None] * len(ANSWERS)
    assert not any('class="notice"' in client.get(page).text for page in PAGES)


def test_texts_that_are_newer_than_scores_are_shown_with_a_sentence_that_says_so(client, lake):
    client.get("/query")
    edit(lake, "a dog sleeps")
    page = client.get("/query").text
    assert "a dog sleeps" in page
    assert f"changed since the scores at {LATE} were computed" in page
    assert f"<code>lorif materialize --checkpoint {LATE}</code>" in page
    assert all('class="notice"' in client.get(page).text for page in PAGES)
    assert all("texts may be newer than scores" in notice for notice in notices(client))


def test_an_answer_to_a_question_of_ones_own_says_so_too(explorer, lake):
    own = {"completion": " A fox."}
    assert called(explorer, TOOLS["influences"], own)["notice"] is None
    edit(lake, "a dog sleeps")
    assert "texts may be newer than scores" in called(explorer, TOOLS["influences"], own)["notice"]


def test_a_lake_that_was_made_again_answers_with_what_it_holds_now(client, lake):
    assert "the quick brown fox" in client.get("/query").text
    shutil.rmtree(lake.root)
    gone = client.get("/query")
    assert (gone.status_code, "lorif materialize" in gone.text) == (404, True)
    edit(stored_influences(lake.root, names=("fox", "plain")), "a dog sleeps")
    page = client.get("/query").text
    assert "a dog sleeps" in page
    assert "the quick brown fox" not in page


def test_settings_that_changed_are_told_on_every_page_and_beside_every_answer_and_fault(client, project, settings):
    settings.write_text("[recipe]\nr = 4")
    said = f"{settings} changed since the explorer was started"
    assert all(said in notice for notice in notices(client))
    assert all(said in client.get(page).text for page in (*PAGES, "/example?shard=x&example=x"))
    settings.write_text("")
    assert notices(client) == [None] * len(ANSWERS)


def test_an_assistant_is_told_of_other_settings_where_a_question_fails(explorer, project, settings):
    project.fails = True
    settings.unlink()
    with pytest.raises(LorifError, match=r"bring them back\. .*lorif\.toml changed since the explorer was started"):
        called(explorer, TOOLS["influences"], {"completion": "x"})


class TestAQuerySetWhoseFileWasRenamed:
    @pytest.fixture
    def queries(self, tmp_path):
        folder = tmp_path / "queries"
        folder.mkdir()
        (folder / "before.jsonl").write_text('{"text": "a"}')
        return folder

    @pytest.fixture
    def explorer(self, lake, project, queries):
        for schema in (QUERY_EXAMPLES, QUERY_SUMMARIES, QUERY_SCORES):
            for name in ("before", "renamed"):
                rows = lake.read(schema, query_set=SET).with_columns(query_set=pl.lit(name))
                put(lake, schema, rows.to_dicts())
        remembering = RememberingLake(lake.root, look_every=0.0)
        query_files = QueryFiles(Settings(queries={"path": str(queries)}))
        explorer = Explorer("a", Recipe(), remembering, Answers(project, remembering), query_files=query_files)
        yield explorer
        explorer.answers.close()

    def test_the_old_name_is_marked_and_the_new_one_is_shown_first(self, client, queries):
        (queries / "renamed.jsonl").write_text('{"text": "a"}')
        page = client.get("/").text
        assert "before (no file any more)" not in page
        assert client.get("/api/queries").json()["query_set"] == "before"
        (queries / "before.jsonl").unlink()
        page = client.get("/").text
        assert "before (no file any more)</option>" in page
        assert "renamed</option>" in page
        found = client.get("/api/queries").json()
        assert (found["query_set"], found["notice"]) == ("renamed", None)
        old = client.get("/api/queries", params={"query_set": "before"}).json()
        assert "No query file is called before any more" in old["notice"]
        assert "No query file is called before any more" in client.get("/query", params={"query_set": "before"}).text

    def test_what_cannot_be_looked_at_is_not_said_to_be_gone(self, client, queries):
        shutil.rmtree(queries)
        assert "(no file any more)" not in client.get("/").text
        queries.mkdir()
        # Two files of one name are a fault of theirs.
        for ending in ("jsonl", "parquet"):
            (queries / f"before.{ending}").write_text("{}")
        assert "before (no file any more)" not in client.get("/").text

    def test_a_folder_that_may_not_be_listed_stops_no_page(self, client, queries, monkeypatch):
        def refuse(folder):
            raise PermissionError(folder)

        monkeypatch.setattr(Path, "iterdir", refuse)
        page = client.get("/")
        assert page.status_code == 200
        assert "(no file any more)" not in page.text


def test_a_checkpoint_whose_files_are_gone_is_marked_and_keeps_its_scores(private_project, monkeypatch):
    monkeypatch.setattr(checkpoint_folders, "_KEPT_SECONDS", 0.0)
    explorer = Explorer.open(config=private_project.root / "lorif.toml")

    def seen(*lost):
        """Pages do not wait for the folder to be looked at."""
        return any(explorer.checkpoint_folders.lost(CHECKPOINTS, patience=1.0) == set(lost) for _ in range(200))

    oldest, newest = CHECKPOINTS
    marked = f"{oldest} (files are gone)</option>"
    at = {"checkpoint": oldest}
    with TestClient(application(explorer), base_url="http://127.0.0.1:7411") as client:
        assert seen()
        assert "(files are gone)" not in client.get("/").text
        assert client.get("/api/influences", params=at).json()["notice"] is None
        (folder,) = (one.path for one in private_project.opened.checkpoints.find() if one.name == oldest)
        shutil.rmtree(folder)
        assert seen(oldest)
        assert client.get("/").text.count("(files are gone)") == 1
        assert marked in client.get("/").text
        found = client.get("/api/influences", params=at).json()
        assert found["listed"]["rows"]
        assert found["notice"].startswith(f"The files of the checkpoint {oldest} are gone")
        assert client.get("/api/overview").json()["lost"] == [oldest]
        shutil.rmtree(folder.parent)
        assert seen(oldest, newest)
        assert client.get("/api/overview").json()["lost"] == [oldest, newest]
