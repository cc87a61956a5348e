"""The JSON API."""

import html
import io
import json
import re
import time
from threading import Event

import polars as pl
import pytest

from lorif_assets.config.recipe import Recipe
from lorif_assets.explorer import verdicts
from lorif_assets.explorer.answers import Answers
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.faces import FACES
from lorif_assets.explorer.latest_checks import LatestChecks
from lorif_assets.explorer.questions import TrustQuestion
from lorif_assets.influences.trust import Standing, trust
from lorif_assets.lake.remembered_rows import RememberingLake
from tests.stored_influences import EARLY, HOSTILE, LATE, QUERIES, SET, SHARD, measured, stored_influences


def ready(client, question):
    for _ in range(600):
        state = client.get("/api/progress", params=question).json()
        if state["stage"] in ("ready", "failed"):
            return state
        time.sleep(0.05)
    raise AssertionError(state)


def names(response):
    return [row["example_id"] for row in response.json()["listed"]["rows"]]


def test_the_overview_has_checkpoints_and_query_sets(client):
    found = client.get("/api/overview").json()
    assert found["project"] == "my project"
    assert [one["name"] for one in found["checkpoints"]] == [EARLY, LATE]


def test_without_parameters_the_newest_checkpoint_and_the_first_query_are_meant(client):
    found = client.get("/api/influences").json()
    assert (found["checkpoint"], found["query"]["query_set"], found["query"]["query_id"]) == (LATE, SET, "q/1")


def test_lists_are_filtered_ranked_and_paged_by_parameters(client):
    at = {"checkpoint": LATE, "query_set": SET, "query": "q/1"}
    assert names(client.get("/api/influences", params=at | {"fold": "false"})) == ["fox", "fox/again"]
    assert names(client.get("/api/influences", params=at)) == ["fox"]
    assert names(client.get("/api/influences", params=at | {"side": "opponents", "where": "topic=sums"})) == ["asked"]
    assert names(client.get("/api/influences", params=at | {"ranking": "relative", "limit": 1})) == ["fox/again"]
    assert names(client.get("/api/influences", params=at | {"method": "bm25", "text": "nothing"})) == ["plain"]
    several = at | {"fold": "false", "where": ["tags=fox", "tags=dog"]}
    # Of two values for one column both have to be there.
    assert names(client.get("/api/influences", params=several)) == ["fox"]


def test_groups_movement_example_and_trust_are_answered(client):
    assert client.get("/api/groups", params={"column": "topic"}).json()["grouping"]["column"] == "topic"
    assert len(client.get("/api/movement").json()["movement"]["checkpoints"]) == 2
    example = client.get("/api/example", params={"shard": SHARD, "example": "hostile"}).json()
    assert example["parts"][0]["text"] == HOSTILE
    assert client.get("/api/trust").json()["standing"] == "unknown"
    assert len(client.get("/api/queries", params={"text": "JUMPS"}).json()["queries"]) == 1


def test_a_verdict_is_found_once_and_again_when_what_it_rests_on_changes(tmp_path, project, monkeypatch):
    found = []
    monkeypatch.setattr(verdicts, "trust", lambda *asked: found.append(asked) or trust(*asked))
    lake = RememberingLake(stored_influences(tmp_path).root, look_every=0.0)
    explorer = Explorer("a", Recipe(), lake, Answers(project, lake))
    for _ in range(2):
        assert explorer.trust(TrustQuestion()).standing is Standing.UNKNOWN
    assert explorer.trust_at_once(TrustQuestion()).standing is Standing.UNKNOWN
    assert len(found) == 1
    measured(lake, LATE, "lds", 0.4, 0.3, 0.5)
    assert explorer.trust(TrustQuestion()).standing is Standing.GOOD


def test_what_checks_say_is_read_again_while_the_explorer_runs(monkeypatch, tmp_path):
    said = iter([["before"], ["now"]])
    monkeypatch.setattr("lorif_assets.checks.latest_results.latest_results", lambda home: next(said))
    monkeypatch.setattr("lorif_assets.explorer.latest_checks._KEPT_SECONDS", 0.0)
    checks = LatestChecks(tmp_path)
    assert [checks.outcomes(60), checks.outcomes(60)] == [["before"], ["now"]]
    assert LatestChecks(None).outcomes() == ()


def test_soon_after_the_start_the_model_is_loaded_and_the_checks_are_read(explorer, project, monkeypatch, tmp_path):
    loaded, read = Event(), Event()
    monkeypatch.setattr(project, "load", loaded.set, raising=False)
    monkeypatch.setattr("lorif_assets.checks.latest_results.latest_results", lambda home: read.set() or [])
    monkeypatch.setattr(explorer, "_checks", LatestChecks(tmp_path))
    explorer.warm()
    assert loaded.wait(60)
    assert read.wait(60)


def test_a_verdict_that_takes_long_keeps_no_page_waiting(client, monkeypatch):
    goes_on = Event()
    monkeypatch.setattr(verdicts, "trust", lambda *asked: goes_on.wait(30) and trust(*asked))
    assert "looking" in client.get("/query").text
    goes_on.set()
    assert "nobody has held" in client.get("/trust").text
    assert "looking" not in client.get("/query").text


@pytest.mark.parametrize(
    ("address", "status", "message"),
    [
        ("/api/influences?checkpoint=x", 404, "no scores are stored of a checkpoint 'x'; there are those of step-100"),
        ("/api/influences?query_set=x", 404, "has no scores of a query set 'x'; it has those of odd & ends"),
        ("/api/influences?query=x", 404, "has no query 'x'"),
        ("/api/influences?limit=0", 400, "limit: Input should be greater than or equal to 1 (found '0')"),
        ("/api/influences?side=middle", 400, "side: Input should be 'proponents' or 'opponents' (found 'middle')"),
        (
            "/api/influences?colour=red",
            400,
            "colour: there is no such parameter (found 'red'). Parameters: checkpoint",
        ),
        ("/api/influences?where=topic", 400, "`where` is column=value, found 'topic'"),
        ("/api/influences?completion=a&query=b", 400, "give one"),
        ("/api/influences?prompt=a", 400, "`prompt` goes with `completion`"),
        ("/api/influences?completion=a", 404, "this question is not answered yet (not asked)"),
        ("/api/influences?completion=a&method=bm25", 404, "answered by LoRIF alone"),
        ("/api/progress", 404, "nothing is to be computed"),
        ("/api/example?shard=docs", 400, "example: Field required"),
        ("/api/influences.docx", 404, "exported as csv or parquet"),
        ("/api/nothing", 404, "Not Found"),
    ],
)
def test_errors_are_json_that_says_what_to_do(client, address, status, message):
    response = client.get(address)
    assert response.status_code == status
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"x"', b""])
def test_a_body_that_is_no_object_is_refused(client, body):
    response = client.post("/api/ask", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert "JSON" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('{"a":' * 5_000 + "1" + "}" * 5_000, "nested more than 100 deep"),
        ("[" * 100_000, "nested more than 100 deep"),
        ('{"completion": "a", "completion": "b"}', "the key 'completion' is there 2 times in one object"),
        (b'{"completion": "\xff"}', "can't decode byte 0xff"),
    ],
)
def test_a_body_of_which_a_reader_could_make_this_or_that_is_refused(client, body, reason):
    found = client.post("/api/ask", content=body, headers={"Content-Type": "application/json"})
    assert found.status_code == 400
    assert reason in found.json()["error"]["message"]


def test_a_completion_is_asked_about_watched_and_listed(client, project):
    question = {"prompt": "a\nb", "completion": " c"}
    project.goes_on.clear()
    assert client.post("/api/ask", json=question).json()["stage"] in ("waiting", "computing")
    for _ in range(200):
        state = client.get("/api/progress", params=question).json()
        if state["done"]:
            break
        time.sleep(0.02)
    assert (state["stage"], state["doing"], state["done"], state["total"], state["unit"]) == (
        "computing",
        "scoring",
        2,
        6,
        "examples",
    )
    project.goes_on.set()
    assert ready(client, question)["stage"] == "ready"
    found = client.get("/api/influences", params=question)
    assert names(found) == ["asked", "chat", "fox"]
    assert [part["text"] for part in found.json()["query"]["parts"]] == ["a\nb", " c"]
    assert names(client.get("/api/influences", params=question | {"side": "opponents"})) == ["plain", "hostile"]
    assert client.get("/api/groups", params=question).json()["grouping"]["is_complete"]
    # Asked again, nothing is computed again.
    assert client.post("/api/ask", json=question).json()["stage"] == "ready"
    assert project.asked == [("a\nb", " c", LATE, "all")]


def test_a_key_stands_for_a_question_while_the_explorer_runs(client):
    asked = client.post("/api/ask", json={"prompt": "a" * 200_000, "completion": " c"}).json()
    question = {"asked": asked["key"]}
    assert ready(client, question)["stage"] == "ready"
    assert names(client.get("/api/influences", params=question)) == ["asked", "chat", "fox"]
    unknown = client.get("/api/influences?asked=x")
    assert unknown.status_code == 404
    assert "ask it again" in unknown.json()["error"]["message"]


def test_a_chat_and_all_examples_of_a_stored_query_are_asked_about(client, project):
    for question in ({"prompt": "hi", "completion": "ho", "chat": True}, {"query": "q/1", "every": True}):
        client.post("/api/ask", json=question)
        assert ready(client, question)["stage"] == "ready"
    assert [asked[1] for asked in project.asked] == ["chat: ['user', 'assistant']", "q/1"]
    found = client.get("/api/influences", params={"query": "q/1", "every": "true"}).json()
    # It is shown as the stored query that it is.
    assert found["query"]["parts"][0]["text"] == QUERIES["q/1"][0]
    assert found["listed"]["is_complete"]


def test_a_contrast_is_asked_about_and_told_as_one(client, project):
    question = {"prompt": "a", "completion": " b", "against": " c"}
    client.post("/api/ask", json=question)
    assert ready(client, question)["stage"] == "ready"
    assert project.lines == [{"prompt": "a", "completion": " b", "against": " c"}]
    assert client.get("/api/influences", params=question).json()["query"]["objective"] == {"against": " c"}
    page = client.get("/query", params=question).text
    assert "Difference of the losses" in page
    # A part of a contrast is no question.
    assert "data-selectable" not in page
    client.post("/api/ask", json=question | {"chat": True})
    assert ready(client, question | {"chat": True})["stage"] == "ready"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": " b"}]
    assert project.lines[1:] == [{"messages": turns, "against": " c"}]
    for wrong in ({"against": " c"}, question | {"span": "b"}):
        refused = client.post("/api/ask", json=wrong)
        assert refused.status_code == 400
        assert "`against` goes with `completion`" in refused.json()["error"]["message"]


def test_several_completions_are_asked_about_together_in_an_address_too(client, project):
    members = [{"prompt": "a", "completion": " b", "weight": 2.0}, {"completion": " c", "weight": -1.0}]
    client.post("/api/ask", json={"weighted": members})
    # Of one list: as JSON, or each as a parameter of its own.
    asked, separately = {"weighted": json.dumps(members)}, {"weighted": [json.dumps(one) for one in members]}
    assert ready(client, asked)["stage"] == "ready"
    whole = [members[0], {"prompt": "", **members[1]}]
    assert project.lines == [{"weighted": whole}]
    found = client.get("/api/influences", params=separately).json()
    assert found["query"]["objective"] == {"weighted": whole}
    page = client.get("/query", params=asked).text
    assert "2 weighted completions" in page
    assert "Weighted sum of the losses" in page
    assert "made the completions, by their weights, more likely" in page
    assert "data-selectable" not in page
    # Where it leads on, it is the same question.
    (groups,) = re.findall(r'href="(/groups[^"]*)"', page)
    assert client.get(html.unescape(groups)).status_code == 200
    assert project.lines == [{"weighted": whole}]
    client.post("/api/ask", json={"weighted": members, "chat": True})
    assert ready(client, asked | {"chat": True})["stage"] == "ready"
    chats = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " b"}], "weight": 2.0},
        {"messages": [{"role": "assistant", "content": " c"}], "weight": -1.0},
    ]
    assert project.lines[1:] == [{"weighted": chats}]
    page = client.get("/query", params=asked | {"chat": True}).text
    assert re.search(r"2.00 × <span[^>]*>a <mark>b</mark>", page)
    for wrong in ({"completion": "x"}, {"query": "q/1"}, {"span": "b"}):
        refused = client.post("/api/ask", json={"weighted": members, **wrong})
        assert refused.status_code == 400
        assert "`weighted`" in refused.json()["error"]["message"]
    for member in ({"prompt": "a"}, {"completion": " b", "weight": "much"}, {"completion": "b", "weigth": 1}):
        assert client.post("/api/ask", json={"weighted": [member]}).status_code == 400


def test_a_question_that_failed_says_why_and_is_tried_again(client, project):
    project.fails = True
    question = {"completion": "x"}
    client.post("/api/ask", json=question)
    assert ready(client, question)["error"] == "the checkpoint's files are gone; bring them back"
    project.fails = False
    client.post("/api/ask", json=question)
    assert ready(client, question)["stage"] == "ready"


def test_a_list_is_a_file_with_all_its_rows(client):
    whole = client.get("/api/influences.csv?fold=false&limit=1&side=opponents")
    assert whole.headers["content-disposition"] == 'attachment; filename="influences.csv"'
    table = pl.read_csv(io.BytesIO(whole.content))
    assert table["example_id"].to_list() == ["plain", "asked"]
    parquet = pl.read_parquet(io.BytesIO(client.get("/api/influences.parquet").content))
    assert parquet["copies"].to_list() == [1]


def test_the_schema_describes_every_question_and_what_it_answers(client):
    schema = client.get("/api/openapi.json").json()
    assert set(schema["paths"]) == {f"/api/{face.name}" for face in FACES}
    influences = schema["paths"]["/api/influences"]["get"]
    assert {one["name"] for one in influences["parameters"]} >= {"checkpoint", "query", "side", "where", "completion"}
    assert all(one["description"] for one in influences["parameters"])

    def references(node):
        if isinstance(node, dict):
            yield from ([node["$ref"]] if "$ref" in node else [])
            node = list(node.values())
        if isinstance(node, list):
            for one in node:
                yield from references(one)

    known = {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    assert set(references(schema)) <= known


def test_half_of_a_surrogate_pair_is_no_parameter(client):
    sent = client.post("/api/ask", content='{"completion": "\\ud800"}', headers={"content-type": "application/json"})
    assert sent.status_code == 400
    assert "surrogate" in sent.json()["error"]["message"]


CUT = "20 tokens in front and 0 behind of 68: at most 48 are kept"


def test_each_answer_to_a_question_that_was_cut_says_so(client, project):
    project.cut = CUT
    asked = {"completion": " c"}
    client.post("/api/ask", json=asked)
    ready(client, asked)
    said = f"What was asked is too long, and was cut: {CUT}"
    for name in ("influences", "groups"):
        assert client.get(f"/api/{name}", params=asked).json()["notice"] == said
    for path in ("/query", "/groups"):
        assert said in client.get(path, params=asked).text
    assert client.get("/api/influences").json()["notice"] is None


def test_the_tokens_of_a_pair_that_was_cut_say_so(client, project):
    project.cut = CUT
    asked = {"completion": " c", "shard": SHARD, "example": "fox"}
    client.post("/api/ask", json=asked)
    ready(client, asked)
    sides = [f"{what} is too long, and was cut: {CUT}" for what in ("What was asked", "The example")]
    assert client.get("/api/tokens", params=asked).json()["notice"] == ". ".join(sides)
    assert all(one in client.get("/tokens", params=asked).text for one in sides)
