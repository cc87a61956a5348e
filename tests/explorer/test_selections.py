"""Training data selected in the explorer: looked at first, and written where the one who started it allows that."""

import json

import pyarrow.parquet as pq
import pytest
from starlette.testclient import TestClient

from lorif_assets.config.settings import CONFIG_NAME
from lorif_assets.explorer.application import application
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.mcp_tools import TOOLS, called, tools
from lorif_assets.explorer.questions import SelectionQuestion
from tests.conftest import CHECKPOINTS, QUERY_SET

QUARTER = {"amount": "25%"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "selections"


@pytest.fixture
def explorer(tiny_project, folder):
    """The explorer of a project that can be computed on; it may write into a folder that is not there yet."""
    explorer = Explorer.open(config=tiny_project.root / CONFIG_NAME, selections=folder)
    yield explorer
    explorer.answers.close()


@pytest.fixture
def reading(tiny_project):
    explorer = Explorer.open(config=tiny_project.root / CONFIG_NAME)
    yield explorer
    explorer.answers.close()


def client_of(explorer):
    return TestClient(application(explorer), base_url="http://127.0.0.1:7411")


def selected(explorer, client, **question):
    """Have a selection found, and return what the API tells of it."""
    assert client.post("/api/select", json=question).status_code == 200
    wanted = explorer.selecting.wanted(SelectionQuestion(**question))
    assert explorer.answers.wait(wanted, 300).stage == "ready"
    assert client.get("/api/selecting", params=question).json()["stage"] == "ready"
    return client.get("/api/selection", params=question).json()


def test_a_selection_is_told_by_source_and_group_before_anything_is_written(explorer, folder):
    with client_of(explorer) as client:
        found = selected(explorer, client, **QUARTER)
        assert (found["n_rows"], found["n_examples"]) == (9, 36)
        assert found["sources"] == [{"name": "docs", "n_rows": 9, "n_examples": 36}]
        groups = found["groups"]
        assert sum(group["n_rows"] for group in groups["groups"]) == 9
        assert sum(group["n_examples"] for group in groups["groups"]) == 36
        assert found["command"] == (
            f"lorif select --query-set {QUERY_SET} --checkpoint {CHECKPOINTS[1]} --ranking plain --top 25% --output selected"
        )
    assert not folder.exists()


def test_as_much_is_taken_of_each_group_and_near_duplicates_are_counted(explorer):
    with client_of(explorer) as client:
        found = selected(explorer, client, amount="3", by="topic", without_duplicates=True)
    assert found["groups"]["column"] == "topic"
    assert {group["n_rows"] for group in found["groups"]["groups"]} == {3}
    assert found["n_near_duplicates"] >= 0


def test_what_is_written_is_what_was_shown_and_nothing_is_written_over(explorer, folder):
    with client_of(explorer) as client:
        shown = selected(explorer, client, **QUARTER)
        written = client.post("/api/write_selection", json=QUARTER | {"output": "picked.parquet"}).json()
        assert written == {"path": str(folder / "picked.parquet"), "n_rows": 9, "files": {"docs": "picked.parquet"}}
        again = client.post("/api/write_selection", json=QUARTER | {"output": "picked.parquet"})
        assert again.status_code == 400
        assert "is there already" in again.json()["error"]["message"]
    assert pq.read_table(folder / "picked.parquet").num_rows == shown["n_rows"]
    assert json.loads((folder / "picked.lineage.json").read_text())["rows"] == shown["n_rows"]


@pytest.mark.parametrize(
    "output", ["../picked", "/tmp/picked", "a/b", ".hidden", "..", ".", "", "a\\b", "x\0", "picked.", "x" * 300]
)
def test_a_name_that_leads_out_of_the_folder_is_refused(explorer, folder, output):
    with client_of(explorer) as client:
        response = client.post("/api/write_selection", json=QUARTER | {"output": output})
    assert response.status_code == 400
    assert f"in {folder}" in response.json()["error"]["message"]
    assert not folder.exists()


@pytest.mark.parametrize("output", ["picked.csv", "picked.JSON", "picked.jsonl.gz"])
def test_a_name_of_a_kind_of_file_that_is_not_written_is_refused(explorer, folder, output):
    with client_of(explorer) as client:
        response = client.post("/api/write_selection", json=QUARTER | {"output": output})
    assert response.status_code == 400
    assert "written as Parquet or JSON Lines" in response.json()["error"]["message"]
    assert not folder.exists()


def test_without_leave_nothing_is_written_and_the_command_is_told(reading):
    with client_of(reading) as client:
        response = client.post("/api/write_selection", json=QUARTER | {"output": "picked"})
        page = client.get("/select", params=QUARTER).text
    assert response.status_code == 403
    message = response.json()["error"]["message"]
    assert "lorif explore --allow-writing FOLDER" in message
    assert "--top 25% --output selected" in message
    assert "data-write" not in page


def test_neither_a_link_nor_a_form_of_another_site_selects_or_writes(explorer, folder):
    with client_of(explorer) as client:
        assert client.get("/select", params=QUARTER).status_code == 200
        assert explorer.selecting.progress(SelectionQuestion(**QUARTER)).stage == "not asked"
        for path in ("/api/select", "/api/write_selection"):
            assert client.get(path, params=QUARTER | {"output": "x"}).status_code == 405
            assert client.post(path, data={"output": "x"}).status_code == 400
            foreign = client.post(path, json=QUARTER | {"output": "x"}, headers={"Origin": "http://evil.example"})
            assert foreign.status_code == 403
    assert not folder.exists()


def test_the_first_rows_are_shown_with_their_texts_as_the_end_of_the_ranking_has_them(explorer):
    with client_of(explorer) as client:
        best = selected(explorer, client, amount="20")["leading"]
        worst = selected(explorer, client, amount="20", end="bottom")["leading"]
        page = client.get("/select", params={"amount": "20"}).text
    assert len(best) == len(worst) == 10
    assert [row["value"] for row in best] == sorted((row["value"] for row in best), reverse=True)
    assert [row["value"] for row in worst] == sorted(row["value"] for row in worst)
    assert all(row["parts"][0]["text"] for row in best + worst)
    assert [page.index(f"example={row['example_id']}") for row in best] == sorted(
        page.index(f"example={row['example_id']}") for row in best
    )


def test_query_sets_have_weights_and_below_zero_rows_against_them_are_wanted(explorer):
    against = {"also": [f"{QUERY_SET}=-1"]}
    with client_of(explorer) as client:
        for_it, against_it = (selected(explorer, client, amount="3", **also) for also in ({}, against))
        lowest = selected(explorer, client, amount="3", end="bottom")
        missing = client.post("/api/select", json={"also": ["no such=2"]})
        no_weight = client.post("/api/select", json={"also": [f"{QUERY_SET}=much"]})
        of_one = client.post("/api/select", json=against | {"query": "q0"})
    assert for_it["query_sets"] == {QUERY_SET: 1}
    assert against_it["query_sets"] == {QUERY_SET: -1}
    assert f"--query-set {QUERY_SET}=-1 " in against_it["command"]
    assert [row["example_id"] for row in against_it["leading"]] == [row["example_id"] for row in lowest["leading"]]
    assert [row["value"] for row in against_it["leading"]] == [-row["value"] for row in lowest["leading"]]
    assert (missing.status_code, no_weight.status_code, of_one.status_code) == (404, 400, 400)
    assert "has no scores of a query set 'no such'" in missing.text


def test_of_each_value_at_least_one_row_is_taken_and_the_page_says_so(explorer):
    with client_of(explorer) as client:
        selected(explorer, client, amount="1%", by="topic")
        page = client.get("/select", params={"amount": "1%", "by": "topic"}).text
    assert "1% of the rows of each value of <bdi>topic</bdi>, and at least one." in page


def test_a_wrong_amount_or_query_says_so(explorer):
    with client_of(explorer) as client:
        for wrong, status, message in (
            ({"amount": "many"}, 400, "an amount is a share"),
            ({"amount": "0"}, 400, "an amount is a share"),
            ({"query": "no such"}, 404, "no such"),
            ({"end": "middle"}, 400, "end"),
        ):
            for response in (client.post("/api/select", json=wrong), client.get("/select", params=wrong)):
                assert response.status_code == status
                assert message in response.text


def test_an_assistant_waits_for_a_selection_and_writes_only_where_that_is_allowed(explorer, reading, folder):
    found = called(explorer, TOOLS["selection"], QUARTER)
    assert found["n_rows"] == 9
    assert "write_selection" not in tools(reading)
    written = called(explorer, tools(explorer)["write_selection"], QUARTER | {"output": "picked"})
    assert written["files"] == {"docs": "docs.parquet"}
    assert pq.read_table(folder / "picked" / "docs.parquet").num_rows == 9


@pytest.mark.slow
def test_a_person_looks_at_a_selection_and_writes_it(opened, explorer, folder):
    page = opened("/query")
    page.click("a.select-data")
    page.wait_for_selector("text=of 36 rows")
    page.fill("input[name=amount]", "25%")
    page.press("input[name=amount]", "Enter")
    page.wait_for_selector(".verdict:has-text('9 of 36 rows')")
    page.click("text=queries of the set in its place")
    page.wait_for_selector(".verdict:has-text('9 of 36 rows')")
    page.click("form.filters input[name=without_duplicates]")
    page.wait_for_url("**without_duplicates=true**")
    page.wait_for_selector("text=are left out")
    page.fill("main input[name=amount]", "many")
    page.press("main input[name=amount]", "Enter")
    assert page.evaluate("document.querySelector('main input[name=amount]').validity.patternMismatch")
    assert page.locator(".verdict").is_visible()
    page.fill("input[name=output]", "picked.parquet")
    page.click("text=/^Write \\d+ rows$/")
    page.wait_for_selector(f"text=rows are written: {folder / 'picked.parquet'}")
    # Two values of one parameter: the last weight of a set is the one that it has.
    page.goto(f"/select?also={QUERY_SET}%3D-1&also={QUERY_SET}%3D0.5")
    page.wait_for_selector(f"text=--query-set {QUERY_SET}=0.5")
    assert pq.read_table(folder / "picked.parquet").num_rows == 9


def test_rows_are_selected_by_name_and_looked_at_before_they_are_written(explorer, folder):
    ids = ["doc0-1", "docs-00001-00000/doc1-2"]
    with client_of(explorer) as client:
        found = selected(explorer, client, ids=ids)
        assert (found["n_rows"], found["n_examples"], found["query_sets"]) == (2, 36, {})
        assert [(row["example_id"], row["value"]) for row in found["leading"]] == [("doc0-1", None), ("doc1-2", None)]
        assert found["command"] == "lorif select --ids ids.txt --output selected"
        page = client.get("/select", params={"ids": ids}).text
        assert 'download="ids.txt" href="data:text/plain;charset=utf-8,doc0-1%0Adocs-00001-00000/doc1-2"' in page
        written = client.post("/api/write_selection", json={"ids": ids, "output": "named.parquet"}).json()
        assert written["n_rows"] == 2
        others = selected(explorer, client, ids=ids, exclude=True)
        assert others["n_rows"] == 34
        assert others["command"] == "lorif select --ids ids.txt --exclude --output remaining"
    assert pq.read_table(folder / "named.parquet")["id"].to_pylist() == ["doc0-1", "doc1-2"]


def test_ids_that_are_not_there_are_named_and_what_ranks_does_not_go_with_them(explorer):
    with client_of(explorer) as client:
        client.post("/api/select", json={"ids": ["gone"]})
        asked = explorer.answers.wait(explorer.selecting.wanted(SelectionQuestion(ids=("gone",))), 60)
        refused = client.post("/api/select", json={"ids": ["doc0-1"], "by": "topic"})
    assert asked.stage == "failed"
    assert "'gone'" in asked.error
    assert refused.status_code == 400
    assert "nothing is ranked: leave by out" in refused.json()["error"]["message"]


def test_an_assistant_selects_by_name_too(explorer):
    found = called(explorer, TOOLS["selection"], {"ids": ["doc0-1"]})
    assert [row["example_id"] for row in found["leading"]] == ["doc0-1"]


@pytest.mark.slow
def test_a_person_withdraws_marked_rows_once_that_is_confirmed(opened, folder):
    page = opened("/example?shard=docs-00000-00000&example=doc0-1")
    page.locator("[data-mark]").first.check()
    page.click("a.marked")
    page.click("text=Withdraw them from the training data")
    page.wait_for_selector(".verdict:has-text('1 row withdrawn, 35 of 36 rows stay. Nothing is written yet.')")
    assert page.inner_text("h1") == "Withdraw rows from the training data"
    assert page.locator("section:has(#withdrawn) li").all_inner_texts() == ["docs-00000-00000/doc0-1"]
    asked = []
    page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.click("text=Write 35 rows")
    assert asked == ["Write the training data without 1 row? The sources' own files stay as they are."]
    assert not list(folder.glob("remaining*"))
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("text=Write 35 rows")
    page.wait_for_selector(f"text=rows are written: {folder / 'remaining'}")
    left = pq.read_table(folder / "remaining" / "docs.parquet")["id"].to_pylist()
    assert len(left) == 35
    assert "doc0-1" not in left
    assert page.is_visible("section:has(#then) >> text=lorif withdraw")
