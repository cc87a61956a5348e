"""What a screen reader is told of the pages: their headings, and what buttons, links and fields are called."""

import re

import pytest

pytestmark = pytest.mark.slow

PAGES = [
    "/",
    "/?text=fox",
    "/query",
    "/query?method=bm25",
    "/query?every=true",
    "/query?span=fox",
    "/groups?column=topic",
    "/movement",
    "/example?shard=docs&example=fox",
    "/example?shard=docs&example=hostile&from_query=q/1",
    "/tokens?query=q/1&shard=docs&example=fox",
    "/trust",
    "/ask",
    "/select",
    "/select?ids=docs/fox&exclude=true",
    "/marked",
]
# As Playwright writes the tree of what is accessible: - role "name".
NAMED = "button|link|textbox|searchbox|combobox|checkbox|spinbutton|progressbar|img|dialog|region|search|navigation"
NAMELESS = re.compile(rf'\s*- (?:{NAMED})\b(?! ")')


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_one_heading_and_everything_on_it_has_a_name(opened, path):
    page = opened(path)
    page.wait_for_load_state("networkidle")
    page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.locator("h1").count() == 1
    assert page.locator("h1").inner_text().strip()
    assert page.locator("main").count() == 1
    tree = page.locator("body").aria_snapshot()
    assert [line for line in tree.splitlines() if NAMELESS.match(line)] == []
