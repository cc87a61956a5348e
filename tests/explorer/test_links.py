"""Links between pages, whatever queries, examples, columns, checkpoints and query sets are called."""

import html
import re
from collections import Counter
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from starlette.testclient import TestClient

from lorif_assets.config.recipe import Recipe
from lorif_assets.explorer.answers import Answers
from lorif_assets.explorer.application import application
from lorif_assets.explorer.explorer import Explorer
from lorif_assets.lake.remembered_rows import RememberingLake
from lorif_assets.pages.addresses import comparison_address, report_address
from tests import stored_influences
from tests.explorer.conftest import StandInProject

ODD = "a/b?c#d%25e &=+;\"' ü 語 नि 🦊 .."
# Names of checkpoints and query sets come from those of files, with letters, digits and some punctuation alone.
EARLY, LATE, SET, SHARD = "Step@100", "Größe:2+=é", "GSM8K.語-नि~1", "Docs:É.1"
_MOST_OF_A_KIND = 4


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("EARLY", EARLY), ("LATE", LATE), ("SET", SET), ("SHARD", SHARD)):
            patch.setattr(stored_influences, name, value)
        for name in ("_SCORES", "_SIZES"):
            of_examples = {f"{key}{ODD}": value for key, value in getattr(stored_influences, name).items()}
            patch.setattr(stored_influences, name, of_examples)
        examples = {
            f"{key}{ODD}": {**row, "metadata": {ODD: ODD if key == "fox" else key}}
            for key, row in stored_influences.EXAMPLES.items()
        }
        patch.setattr(stored_influences, "EXAMPLES", examples)
        said = {f"{name}{ODD}": (ODD, ODD) for name in ("q/1", "q2", "q 3")}
        root = tmp_path_factory.mktemp("links")
        lake = RememberingLake.of(
            stored_influences.stored_influences(root, n_listed=2, names=tuple(examples), said=said)
        )
    for checkpoint in (EARLY, LATE):
        page = "".join(f"<p><!--explore {quote(name)}--></p>" for name in said)
        lake.write_page(report_address(checkpoint, SET), page.encode())
    lake.write_page(comparison_address(SET), b"<p>compared</p>")
    explorer = Explorer("a", Recipe(), lake, Answers(StandInProject(), lake))
    with TestClient(application(explorer), base_url="http://127.0.0.1:7411") as client:
        yield client
    explorer.answers.close()


def links(text):
    found = re.findall(r'<a [^>]*?href="([^"]*)"', text)
    return [link for link in map(html.unescape, found) if not link.startswith(("#", "data:"))]


def kind(link):
    address = urlsplit(link)
    return address.path, tuple(sorted(name for name, _ in parse_qsl(address.query)))


def test_every_link_of_every_page_leads_to_a_page(client):
    waiting, seen, of_kind = ["/"], {"/"}, Counter()
    while waiting:
        link = waiting.pop(0)
        # One page of each kind is like another.
        of_kind[kind(link)] += 1
        if of_kind[kind(link)] > _MOST_OF_A_KIND:
            continue
        response = client.get(link)
        assert response.status_code == 200, link
        if response.headers["content-type"].startswith("text/html"):
            new = dict.fromkeys(one for one in links(response.text) if one not in seen)
            seen |= new.keys()
            waiting += new
    paths = {path for path, _ in of_kind}
    pages = {"/", "/query", "/groups", "/movement", "/example", "/tokens", "/trust", "/ask", "/select", "/marked"}
    assert paths >= pages | {"/api/influences", "/api/influences.csv", "/api/influences.parquet"}
    assert paths >= {f"/{quote(address)}" for address in (report_address(LATE, SET), comparison_address(SET))}


def test_a_report_leads_back_to_each_of_its_queries(client):
    back = links(client.get(f"/{quote(report_address(LATE, SET))}").text)
    assert len(back) == 3
    for link in back:
        asked = dict(parse_qsl(urlsplit(link).query))
        assert (asked["checkpoint"], asked["query_set"]) == (LATE, SET)
        assert ODD in client.get(f"/api{link}".replace("/api/query", "/api/influences")).json()["query"]["query_id"]
