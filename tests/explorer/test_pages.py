"""The explorer's pages, without a browser."""

import html
import json
import re
import shlex
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlencode, urlsplit

import polars as pl
import pytest
from starlette.testclient import TestClient

from lorif_assets.config.recipe import Recipe
from lorif_assets.data.content.query_objectives import effects
from lorif_assets.explorer.answers import Answers
from lorif_assets.explorer.application import application
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.explorer.page_routes import _columns
from lorif_assets.lake.attribution_tables import EXACT_SCORES
from lorif_assets.lake.data_tables import QUERY_EXAMPLES
from lorif_assets.lake.remembered_rows import RememberingLake
from lorif_assets.pages.passages import codes
from tests.explorer.test_json_api import ready
from tests.stored_influences import EARLY, HOSTILE, LATE, SET, SHARD, put, stored_influences

PATHS = [
    "/",
    "/select",
    "/query",
    "/groups",
    "/groups?column=topic",
    "/movement",
    "/trust",
    "/ask",
    "/query?method=bm25",
]
EXAMPLE = {"shard": SHARD, "example": "hostile"}
_VOID = {"meta", "link", "input", "br", "img", "hr"}
_OWN = {"html", "head", "body", "script", "details", "dialog", "progress", "select", "table", "bdi", "mark", "main"}


class Page(HTMLParser):
    """Links, and a check that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.scripts, self.tags = [], [], [], set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.add(tag)
        assert not any(name.startswith("on") for name in given), given
        if tag == "a":
            self.links.append(given["href"])
        if tag == "script":
            self.scripts.append(given.get("src"))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def shown(client, path, **params):
    response = client.get(path, params=params or None)
    assert response.status_code == 200, response.text
    return Page(response.text)


@pytest.mark.parametrize("path", PATHS)
def test_every_link_of_every_page_leads_somewhere(client, path):
    for link in shown(client, path).links:
        if link.startswith("/") and not link.startswith("/reports/"):
            assert client.get(link).status_code == 200, link


def test_no_text_from_data_becomes_markup_on_any_page(client):
    pages = [shown(client, path) for path in PATHS]
    pages += [shown(client, "/example", **EXAMPLE), shown(client, "/query", query=HOSTILE, text=HOSTILE)]
    pages += [
        shown(client, "/query", where=f"topic={HOSTILE}"),
        shown(client, "/ask", completion=HOSTILE, prompt=HOSTILE),
    ]
    for page in pages:
        assert page.scripts == ["/static/explorer.js", "/static/marking.js"]
        assert "img" not in page.tags
    refused = client.get("/query", params={"query": HOSTILE + "x"})
    assert refused.status_code == 404
    assert Page(refused.text).scripts == ["/static/explorer.js", "/static/marking.js"]
    assert "script&gt;" in refused.text


def test_nothing_is_loaded_from_elsewhere(client):
    for path in PATHS:
        text = client.get(path).text
        assert not re.search(r"""(src|href|action)\s*=\s*["']?(https?:|//|file:)""", text)
    for name in ("page.css", "explorer.css", "explorer.js"):
        response = client.get(f"/static/{name}")
        assert response.status_code == 200
        assert not re.search(r"https?://|url\(", response.text)
    assert client.get("/static/page.py").status_code == 404


def test_an_address_says_all_of_what_is_shown_even_when_a_newer_checkpoint_comes(client):
    links = shown(client, "/query", fold="false", limit=1).links
    (following,) = {link for link in links if "offset=1" in link}
    told = parse_qs(urlsplit(following).query)
    assert told == {
        "checkpoint": [LATE],
        "query_set": [SET],
        "query": ["q/1"],
        "fold": ["false"],
        "limit": ["1"],
        "offset": ["1"],
    }


def test_another_checkpoint_shows_the_same_query_and_keeps_the_filters(client):
    text = client.get("/query", params={"checkpoint": EARLY, "ranking": "relative", "text": "nothing"}).text
    assert '<input type="hidden" name="ranking" value="relative">' in text
    assert f'<option value="{EARLY}" selected>' in text
    assert "nothing in particular" in text


def test_the_line_breaks_of_a_form_are_those_of_the_text(client, project):
    # Browsers send two characters for each.
    client.post("/api/ask", json={"prompt": "a\nb", "completion": "\n c"})
    ready(client, {"prompt": "a\nb", "completion": "\n c"})
    page = client.get("/query", params={"prompt": "a\r\nb", "completion": "\r\n c"})
    assert "data-ask" not in page.text
    assert len(project.asked) == 1


def test_a_question_that_was_not_computed_is_shown_as_asking_and_goes_on_where_it_was(client):
    for path, then in (("/ask", "/query?"), ("/groups", "/groups?"), ("/query", "/query?")):
        text = client.get(path, params={"completion": " c"}).text
        assert re.search(rf'data-ask="[^"]*completion[^"]*" data-then="{re.escape(then)}', text)


def test_a_text_area_keeps_a_leading_line_break_and_spaces(client):
    text = client.get("/ask", params={"completion": "\n  x"}).text
    assert re.search(r'<textarea name="completion"[^>]*>\n\n  x</textarea>', text)


def test_only_rankings_that_are_stored_are_offered(client):
    assert 'value="relative"' in client.get("/query").text
    assert 'value="relative"' not in client.get("/query?method=bm25").text


def test_every_example_is_offered_only_where_not_all_were_scored(client):
    client.post("/api/ask", json={"query": "q/1", "every": True})
    ready(client, {"query": "q/1", "every": "true"})
    for path in ("/query", "/groups"):
        assert "score every example" in client.get(path).text
        for ranking in ("plain", "relative"):
            computed = client.get(path, params={"query": "q/1", "every": "true", "ranking": ranking})
            assert "score every example" not in computed.text
            assert "Over checkpoints" in computed.text


def test_a_histogram_is_drawn_where_all_examples_are_ranked(client):
    assert shown(client, "/query?method=bm25").tags >= {"svg", "rect"}
    assert "svg" not in shown(client, "/query").tags


def test_ranks_by_whole_gradients_stand_beside_those_that_they_were_stored_with(tmp_path, client, explorer):
    lake = stored_influences(tmp_path)
    at = {"checkpoint": LATE, "query_set": SET, "query_id": "q/1", "shard": SHARD}
    ranks = [("fox", "highest", 2, "now"), ("hostile", "highest", 1, "before"), ("plain", "lowest", 1, "now")]
    put(
        lake,
        EXACT_SCORES,
        [
            {**at, "example_id": name, "side": side, "rank": rank, "score": 1.5, "scores_from": scores}
            for name, side, rank, scores in ranks
        ],
    )
    explorer.lake = type(explorer.lake).of(lake)
    question = {"query": "q/1", "fold": "false"}
    # One that belongs to other scores than the stored ones is not told.
    rows = client.get("/api/influences", params=question).json()["listed"]["rows"]
    assert {row["example_id"]: row["exact"] for row in rows if row["exact"]} == {"fox": {"rank": 2, "score": 1.5}}
    (opponent, *_) = client.get("/api/influences", params={**question, "side": "opponents"}).json()["listed"]["rows"]
    assert opponent["exact"]["rank"] == 1
    assert re.findall(r"exact #(\d)", client.get("/query", params=question).text) == ["2", "1"]
    assert "exact #" not in client.get("/query", params={**question, "ranking": "relative"}).text


def test_what_stands_between_backticks_is_code_and_stays_text(client):
    assert codes("run `lorif a <b>`, not `c") == "run <code>lorif a &lt;b&gt;</code>, not `c"
    assert "<code>lorif evaluate</code>" in client.get("/trust").text


def test_near_duplicates_are_folded_and_can_be_opened(client):
    text = client.get("/query").text
    assert "1 near-duplicate below" in text
    assert "example=fox%2Fagain" in text


def test_prompt_and_completion_of_a_training_example_are_told_apart(client):
    text = client.get("/query").text
    assert re.search(r'class="text example no-loss"[^>]*>\s*<span class="said">Two and two\?', text)
    assert re.search(r'class="text example"[^>]*>\s*<span class="said"> Four\.', text)


def test_an_empty_lake_says_what_to_do(tmp_path, project):
    from starlette.testclient import TestClient

    from lorif_assets.config.recipe import Recipe
    from lorif_assets.explorer.answers import Answers
    from lorif_assets.explorer.application import application
    from lorif_assets.explorer.explorer import Explorer
    from lorif_assets.lake.remembered_rows import RememberingLake

    lake = RememberingLake(str(tmp_path))
    app = application(Explorer("empty", Recipe(), lake, Answers(project, lake)))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        response = client.get("/")
    assert response.status_code == 404
    assert "lorif materialize" in response.text


def test_a_stored_report_is_served_with_links_into_the_explorer(client, stored):
    page = f"<p>report</p><!--explore {HOSTILE_ID}--><p>&lt;!--explore x--&gt;</p>"
    stored.write_file(f"reports/{LATE}/{SET}.html", page.encode())
    response = client.get(f"/reports/{LATE}/{SET}.html")
    (link,) = Page(response.text).links
    assert client.get(link).status_code == 200
    assert "script-src" not in response.headers["content-security-policy"]
    assert client.get(f"/reports/{LATE}/other.html").status_code == 404
    for outside in ("/reports/../x.html", "/reports/%2e%2e/x.html", "/reports/..%2f..%2fetc/x.html"):
        assert client.get(outside).status_code == 404


HOSTILE_ID = "q%2F1"


def test_the_page_of_a_stored_query_has_the_command_that_selects_what_leads_it(client):
    said = html.unescape(client.get("/query", params={"query": HOSTILE, "ranking": "relative"}).text)
    command = shlex.split(re.search(r"<pre>(lorif select .*?)</pre>", said, re.DOTALL)[1])
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert options == {
        "--query-set": SET,
        "--query": HOSTILE,
        "--checkpoint": LATE,
        "--ranking": "relative",
        "--top": "10%",
        "--output": "selected",
    }
    assert "lorif select" not in client.get("/query", params={"method": "bm25"}).text


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        ({"against": " A <dog>."}, "against A <dog>."),
        (
            {"weighted": [{"prompt": "", "completion": " A fox.", "weight": 1.0}] * 3},
            "the first of 3 weighted completions",
        ),
        ({"span": "fox"}, "only fox"),
        ({"span": [1, 6]}, "only the characters 1 to 6"),
        (
            {"scalar": {"name": "probes.py:honesty", "file": "probes.py", "hash": "0"}},
            "what probes.py:honesty computes",
        ),
        ({}, None),
    ],
)
def test_lists_of_queries_say_what_is_asked_about_where_it_is_not_the_loss_of_all_of_it(tmp_path, objective, words):
    lake = RememberingLake(stored_influences(tmp_path).root, look_every=0.0)
    rows = lake.read(QUERY_EXAMPLES, query_set=SET).with_columns(objective=pl.lit(json.dumps(objective)))
    put(lake, QUERY_EXAMPLES, rows.to_dicts())
    explorer = Explorer("a", Recipe(), lake, Answers(None, lake))
    with TestClient(application(explorer), base_url="http://127.0.0.1:7411") as client:
        for path in ("/", "/query", "/example?" + urlencode(EXAMPLE)):
            # On a line of their own, which holds elements without others in them.
            lines = re.findall(
                r'<span class="line asks">((?:[^<]|<(\w+)[^>]*>[^<]*</\2>)*)</span>', client.get(path).text
            )
            said = {html.unescape(re.sub("<[^>]*>", "", line)) for line, _ in lines}
            assert said == ({words} if words else set()), path
        for side in (effects(objective).proponents, effects(objective).opponents):
            assert f"<small>{side}</small>" in client.get("/query").text
        selecting = client.get("/select", params={"query": HOSTILE}).text
        assert ('class="line asks"' in selecting.partition("<main")[2]) == bool(words)
    explorer.answers.close()


def test_the_values_of_a_contrast_are_no_losses_along_the_checkpoints(tmp_path):
    lake = RememberingLake(stored_influences(tmp_path).root, look_every=0.0)
    rows = lake.read(QUERY_EXAMPLES, query_set=SET).with_columns(objective=pl.lit(json.dumps({"against": " A dog."})))
    put(lake, QUERY_EXAMPLES, rows.to_dicts())
    explorer = Explorer("a", Recipe(), lake, Answers(None, lake))
    with TestClient(application(explorer), base_url="http://127.0.0.1:7411") as client:
        page = client.get("/movement").text
        found = client.get("/api/movement").json()["movement"]["checkpoints"]
    explorer.answers.close()
    assert "Loss per token" not in page
    assert re.search(r"Difference of the losses</th><td[^>]*>6\.00</td><td[^>]*>6\.00</td>", page)
    assert [(one["loss"], one["loss_per_token"]) for one in found] == [(6.0, None)] * 2


def test_a_page_behind_the_last_row_of_a_side_says_where_it_ends(client):
    page = client.get("/query", params={"offset": 1000}).text
    assert page.count("This side ends at row") == 2
    assert "passes the filter" not in page


def test_a_filter_that_is_active_is_shown_whatever_its_value(client):
    page = client.get("/query", params={"where": "nocolumn=1"}).text
    assert '<option value="nocolumn=1" selected>1</option>' in page


@pytest.mark.parametrize(
    ("sides", "columns"),
    [
        ([{"topic": [("a", 2), ("b", 1)]}, {"topic": [("b", 3)]}], {"topic": [("b", 4), ("a", 2)]}),
        ([{"topic": [("a", 2)]}, {"topic": [("a", 1)]}], {}),
        # Of a side whose values are cut, the others are not known.
        (
            [{"topic": [(str(n), 1) for n in range(50)]}, {"topic": [("0", 1)]}],
            {"topic": [(str(n), None) for n in range(50)]},
        ),
    ],
)
def test_counts_of_values_are_those_of_both_sides(sides, columns):
    assert _columns(sides, ()) == columns


def test_an_example_at_a_checkpoint_without_scores_is_not_there(client):
    assert client.get("/example", params={**EXAMPLE, "checkpoint": "nope"}).status_code == 404


def test_the_overlap_is_said_to_be_that_of_proponents(client):
    assert "Overlap of the proponents" in client.get("/movement", params={"side": "opponents"}).text


def test_until_a_stored_query_is_scored_the_page_shows_it(client):
    for path, params, title in (
        ("/query", {"every": "true"}, "Scoring every example"),
        ("/groups", {"every": "true"}, "Scoring every example"),
        ("/query", {"span": "fox"}, "Which examples made it say this part?"),
        ("/tokens", {"shard": SHARD, "example": "fox"}, "Which words of fox?"),
    ):
        main = client.get(path, params={"query": "q/1", **params}).text.partition("<main")[2]
        assert f'<h1 class="small">{title}</h1>' in main
        assert "What jumps?" in main
        assert " A fox." in main
        assert "data-ask" in main
        # A form for a question of one's own would be empty.
        assert "<textarea" not in main


@pytest.mark.parametrize(
    "said",
    [
        {"prompt": "Say", "completion": " it", "chat": True},
        {"prompt": "Say", "completion": " it", "against": " not"},
        {"weighted": [{"prompt": "Say", "completion": " it", "weight": 1.0}, {"completion": " me", "weight": -2.0}]},
        {"weighted": [{"prompt": "Say", "completion": " it"}, {"completion": " me", "weight": -2.0}], "chat": True},
    ],
)
def test_a_form_keeps_a_question_that_a_key_stands_for(client, project, said):
    project.goes_on.clear()
    key = client.post("/api/ask", json=said).json()["key"]
    text = client.get("/ask", params={"asked": key}).text
    assert re.search(r'<textarea name="prompt"[^>]*>\nSay</textarea>', text)
    assert re.search(r'<textarea name="completion"[^>]*>\n it</textarea>', text)
    assert (' name="chat" value="true" checked' in text) == said.get("chat", False)
    assert ("\n not</textarea>" in text) == ("against" in said)
    assert ("\n me</textarea>" in text) == ("weighted" in said)


def test_groups_of_the_two_ends_of_a_ranking_say_what_they_are_of_and_have_no_interval(client, project):
    page = client.get("/groups", params={"column": "topic"}).text
    assert "Share of the influence of both ends" in page
    assert "all influence" not in page
    assert "95 % interval" not in page
    groups = client.get("/api/groups", params={"column": "topic"}).json()["grouping"]["groups"]
    assert {(one["low"], one["high"]) for one in groups} == {(None, None)}
    every = {"query": "q/1", "every": "true", "column": "topic"}
    client.post("/api/ask", json={"query": "q/1", "every": True})
    ready(client, {"query": "q/1", "every": "true"})
    whole = client.get("/groups", params=every).text
    assert "Share of all influence" in whole
    assert "95 % interval" in whole
