"""The queries of a set as pages list them: however many there are, and whatever they say."""

import html
import re
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from lorif_assets.config.recipe import Recipe
from lorif_assets.explorer.answers import Answers
from lorif_assets.explorer.application import application
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.influences.catalogue import ScoredQuery
from lorif_assets.lake.remembered_rows import RememberingLake
from tests.explorer.conftest import StandInProject
from tests.stored_influences import stored_influences

MANY = {f"q{number}": ("Which number?", f" It is the number {number}.") for number in range(250)}
PAGES = ("/", "/query", "/groups", "/movement", "/select", "/marked", "/trust", "/example?shard=docs&example=fox")


def explored(root, said):
    lake = RememberingLake.of(stored_influences(root, said=said))
    explorer = Explorer("a", Recipe(), lake, Answers(StandInProject(), lake))
    return explorer, TestClient(application(explorer), base_url="http://127.0.0.1:7411")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    explorer, client = explored(tmp_path_factory.mktemp("many"), MANY)
    with client:
        yield client
    explorer.answers.close()


def queries(text):
    """The numbers of the queries that a text of a page lists."""
    return [int(number) for number in re.findall(r"<mark>It is the number (\d+)\.", text)]


def parts(client, path, **params):
    """What a page lists beside its content, and in it."""
    beside, _, main = client.get(path, params=params or None).text.partition("<main")
    return beside, main


@pytest.mark.parametrize("path", PAGES)
def test_no_page_writes_or_reads_all_queries_of_a_large_set(many, path, monkeypatch):
    made = []
    begin = ScoredQuery.__init__
    monkeypatch.setattr(ScoredQuery, "__init__", lambda *args, **named: (made.append(1), begin(*args, **named))[1])
    beside, _ = parts(many, path)
    assert queries(beside) == list(range(100))
    assert "1 to 100 of 250" in beside
    assert len(made) <= 210


def test_the_first_page_leads_from_page_to_page_of_the_queries(many):
    found, link = [], "/"
    while link:
        _, main = parts(many, link)
        found += queries(main)
        (link, *_) = [*re.findall(r'<a href="([^"]*)">Next</a>', html.unescape(main)), None]
    assert found == list(range(250))


def test_a_query_of_any_page_is_found_by_what_it_says(many):
    beside, main = parts(many, "/", text="NUMBER 24")
    assert queries(main) == [24, *range(240, 250)]
    assert '<form class="find" action="/#queries"' in beside
    assert "No query of this set says that" in parts(many, "/", text="nowhere")[1]
    assert "The list ends at query 250" in parts(many, "/", offset="1000")[1]


def test_the_list_beside_a_query_has_its_neighbours(many):
    beside, _ = parts(many, "/query", query="q120")
    assert queries(beside) == list(range(100, 200))
    assert re.search(r'<a href="[^"]*query=q120"[^>]*aria-current="page"', beside)


def test_the_next_query_is_there_also_at_the_end_of_what_is_listed(many):
    for query, key, expected in (("q99", "n", "q100"), ("q100", "p", "q99"), ("q0", "p", None), ("q249", "n", None)):
        beside, _ = parts(many, "/query", query=query)
        links = re.findall(rf'<a href="([^"]*)" rel="\w+" data-key="{key}"', html.unescape(beside))
        assert [parse_qs(urlsplit(link).query)["query"] for link in links] == ([[expected]] if expected else [])


def test_the_api_lists_queries_a_page_at_a_time(many):
    page = many.get("/api/queries", params={"text": "number 1", "offset": 100}).json()
    assert (page["offset"], page["n_found"], len(page["queries"])) == (100, 111, 11)
    assert len(many.get("/api/queries").json()["queries"]) == 100


@pytest.mark.parametrize("path", ["/query", "/groups", "/movement"])
def test_another_query_is_shown_in_the_same_view_with_the_same_ranking_and_filters(many, path):
    chosen = {"/query": {"fold": "false", "where": "topic=animals"}, "/groups": {"column": "topic"}, "/movement": {}}
    shown = {"ranking": "relative", **chosen[path]}
    own = {"offset": "1"} if path == "/query" else {}
    beside, _ = parts(many, path, query="q7", **shown, **own)
    links = re.findall(r'<a href="([^"]*)"', html.unescape(beside))
    links = [link for link in links if parse_qs(urlsplit(link).query).get("query") == ["q8"]]
    # In the list, and as the next one.
    assert len(links) == 2
    for link in links:
        address = urlsplit(link)
        asked = {name: value for name, (value,) in parse_qs(address.query).items()}
        assert (address.path, asked.pop("query")) == (path, "q8")
        assert asked.pop("checkpoint")
        assert asked.pop("query_set")
        assert asked == shown


EMPTY = {"none": ("", ""), "blank": ("", " \n"), "prompt": ("Say nothing.", "")}


def test_a_query_that_says_nothing_has_a_link_with_a_text(tmp_path):
    explorer, client = explored(tmp_path, EMPTY)
    with client:
        # The page of marked rows is filled by a script.
        for path in (path for path in PAGES if path != "/marked"):
            for link in re.findall(r"<a [^>]*>(.*?)</a>", client.get(path).text, re.DOTALL):
                assert re.sub(r"<[^>]*>", "", link).strip(), path
        assert client.get("/").text.count("<mark>(empty)</mark>") == 2 * len(EMPTY)
        assert "<title>(empty)" in client.get("/query").text
    explorer.answers.close()
