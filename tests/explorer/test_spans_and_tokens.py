"""A part of what was said, and single tokens: asked about in an address or as JSON."""

import json
import time

import pytest

from lorif_assets.explorer.spans import MarkedSpan, marked_span, span_value
from lorif_assets.lake.attribution_tables import TOKEN_SCORES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from tests.stored_influences import HOSTILE, LATE, SET, SHARD, put, stored_influences


@pytest.mark.parametrize(
    ("span", "value", "marked"),
    [
        ("2-5", [2, 5], MarkedSpan(" A", " fo", "x.")),
        ("fox", "fox", MarkedSpan(" A ", "fox", ".")),
        ("cat", "cat", MarkedSpan("", "", " A fox.")),
        ("5-2", [5, 2], MarkedSpan("", "", " A fox.")),
        ("0-99", [0, 99], MarkedSpan("", "", " A fox.")),
        ("-3", "-3", MarkedSpan("", "", " A fox.")),
        ("\u0662-5", "\u0662-5", MarkedSpan("", "", " A fox.")),
        ("", "", MarkedSpan("", "", " A fox.")),
    ],
)
def test_a_span_is_two_ends_or_a_text(span, value, marked):
    assert span_value(span) == value
    assert marked_span(" A fox.", span) == marked


def test_a_span_is_marked_in_the_normal_form_of_the_text():
    assert marked_span("l'e\u0301te\u0301", "\u00e9t") == MarkedSpan("l'", "e\u0301t", "e\u0301")


def asked(client, **question):
    """Ask, and wait until it is answered."""
    state = client.post("/api/ask", json=question).json()
    while state["stage"] in {"waiting", "computing"}:
        time.sleep(0.01)
        state = client.get("/api/progress", params=question).json()
    return state


def test_the_ranking_of_a_part_is_that_of_a_query_with_a_span(client, project):
    question = {"query_set": SET, "query": "q/1", "span": "3-6"}
    assert asked(client, **question)["stage"] == "ready"
    assert project.lines == [{"prompt": "What jumps?", "completion": " A fox.", "span": [3, 6]}]
    found = client.get("/api/influences", params=question).json()
    assert found["query"]["query_id"] == "q/1"
    assert found["listed"]["rows"][0]["example_id"] == "asked"


def test_parts_of_completions_of_ones_own_and_of_chats_are_asked_about_too(client, project):
    assert asked(client, completion="It ends.", span="ends")["stage"] == "ready"
    assert asked(client, prompt="So?", completion="It ends.", span="3-7")["stage"] == "ready"
    assert asked(client, prompt="So?", completion="It ends.", chat=True, span="ends")["stage"] == "ready"
    said = [{"role": "user", "content": "So?"}, {"role": "assistant", "content": "It ends."}]
    assert project.lines == [
        {"text": "It ends.", "span": "ends"},
        {"prompt": "So?", "completion": "It ends.", "span": [3, 7]},
        {"messages": said, "span": "ends"},
    ]


def test_the_page_of_a_part_marks_it_and_leads_back_to_the_whole(client):
    asked(client, checkpoint=LATE, query_set=SET, query="q/1", span="3-6")
    page = client.get("/query", params={"checkpoint": LATE, "query_set": SET, "query": "q/1", "span": "3-6"}).text
    assert '<span class="said"> A <b class="part">fox</b>.</span>' in page
    assert "lorif select" not in page, "it would select what leads another ranking"
    assert "All of it again" in page


def test_what_a_browser_does_not_show_as_it_is_has_no_part_to_select(tmp_path, client, explorer):
    whole = client.get("/query", params={"query": "q/1"}).text
    assert 'data-selectable="ends"' in whole
    for text in ("two\r\nlines", "long " * 2_000):
        lake = stored_influences(tmp_path / str(len(text)))
        row = {"query_set": SET, "query_id": "q/1", "row": 0, "format": "prompt_completion", "metadata": "{}"}
        put(lake, QUERY_EXAMPLES, [{**row, "prompt": "What?", "completion": text}])
        explorer.lake = type(explorer.lake).of(lake)
        assert "data-selectable" not in client.get("/query", params={"query": "q/1"}).text


def test_tokens_of_a_pair_are_computed_where_they_are_not_stored(client, project):
    question = {"query_set": SET, "query": "q/1", "shard": SHARD, "example": "fox"}
    assert client.get("/api/tokens", params=question).status_code == 404
    assert asked(client, **question)["stage"] == "ready"
    found = client.get("/api/tokens", params=question).json()
    assert [(one["text"], one["score"]) for one in found["example"][:3]] == [("t", None), ("h", -1.0), ("e", 2.0)]
    assert "".join(one["text"] for one in found["query"][0]) == " A fox."
    assert (found["exact_score"], found["stored_score"]) == (8.0, 4.0)
    assert project.lines == [{"prompt": "What jumps?", "completion": " A fox."}]


def test_tokens_of_a_part_and_of_a_completion_of_ones_own(client, project):
    pair = {"shard": SHARD, "example": "fox"}
    assert asked(client, completion="It ends.", **pair)["stage"] == "ready"
    assert asked(client, query="q/1", span="3-6", **pair)["stage"] == "ready"
    assert project.lines[1]["span"] == [3, 6]
    key = asked(client, completion="It ends.", span="ends")["key"]
    assert asked(client, asked=key, **pair)["stage"] == "ready"
    assert project.lines[-1] == {"text": "It ends.", "span": "ends"}


def test_stored_tokens_are_shown_at_once_and_those_of_other_scores_are_not(tmp_path, client, explorer, project):
    lake = stored_influences(tmp_path)
    at = {"checkpoint": LATE, "query_set": SET, "query_id": "q/1", "shard": SHARD, "term": 0, "token_id": 1}
    rows = [
        {**at, "example_id": example, "side": side, "position": 0, "token": example, "score": 2.0}
        | {"exact_score": 2.0, "stored_score": 1.5, "scores_from": scores}
        for example, scores in (("fox", "now"), ("plain", "before"))
        for side in ("example", "query")
    ]
    put(lake, TOKEN_SCORES, rows)
    explorer.lake = type(explorer.lake).of(lake)
    question = {"checkpoint": LATE, "query_set": SET, "query": "q/1", "shard": SHARD}
    found = client.get("/api/tokens", params={**question, "example": "fox"}).json()
    assert (found["stored_score"], found["example"]) == (1.5, [{"text": "fox", "score": 2.0}])
    assert client.get("/api/tokens", params={**question, "example": "plain"}).status_code == 404
    page = client.get("/tokens", params={**question, "example": "fox"}).text
    assert "it is 1.5" in page
    assert project.lines == []


def test_an_example_that_is_not_there_is_said(client):
    state = asked(client, query="q/1", shard=SHARD, example="gone")
    assert (state["stage"], state["error"]) == ("failed", "no example 'gone'")


def test_tokens_of_hostile_texts_stay_texts(client):
    question = {"checkpoint": LATE, "query_set": SET, "query": HOSTILE, "shard": SHARD, "example": "hostile"}
    asked(client, **question)
    page = client.get("/tokens", params=question).text
    assert "<img" not in page
    assert page.count("<script") == 2  # The two of every page.
    assert json.dumps(HOSTILE)[1:20] not in page


def test_a_report_may_be_shown_in_a_frame_of_this_machine_and_has_no_link_to_pages_that_may_not(
    tmp_path, client, explorer
):
    lake = stored_influences(tmp_path)
    lake.write_page(f"reports/{LATE}/questions.html", b"<p>read me <!--explore q--></p>")
    explorer.lake = type(explorer.lake).of(lake)
    address = f"/reports/{LATE}/questions.html"
    alone = client.get(address)
    assert "Explore it" in alone.text
    assert "frame-ancestors http://127.0.0.1:* http://localhost:*" in alone.headers["content-security-policy"]
    framed = client.get(address, headers={"sec-fetch-dest": "iframe", "sec-fetch-mode": "navigate"})
    assert "read me" in framed.text
    assert "Explore it" not in framed.text
    assert "frame-ancestors 'none'" in client.get("/query").headers["content-security-policy"]
