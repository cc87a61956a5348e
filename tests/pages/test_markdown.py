"""Data on Dagster's pages: whatever a training text holds, a Markdown parser finds the text and nothing else in it."""

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from lorif_assets.checks.check_result import check_result
from lorif_assets.pages.markdown import LONGEST, bullets, code, inline, picture, table

ROOT = Path(__file__).parents[2]
PARSERS = (MarkdownIt("commonmark").enable("table"), MarkdownIt("commonmark", {"html": True}).enable(["table"]))
HOSTILE = [
    "![](https://foreign.example/seen.png)",
    "[click](javascript:alert(1))",
    "<img src=x onerror=alert(1)>",
    "` | ![](https://foreign.example/x) | `",
    "``` ![](https://foreign.example/x) ```",
    "\\` ![](https://foreign.example/x)",
    "\\| ![](https://foreign.example/x) |",
    "a\\\\| ![](https://foreign.example/x)",
    "one | two\n\n| three |",
    "\n\n# heading\n\n* list",
    "https://foreign.example www.foreign.example a@foreign.example",
    "</code><script>alert(1)</script>",
    "&lt;script&gt; &#96; &amp;",
    "[x]: https://foreign.example\n\n[x]",
    "`", "``", " ` ", "|", "\\", "\\|", "\\\\|", "", " ", "\x00", "\u2028", "\ud800", "a" * 1_000,
]  # fmt: skip
ALPHABET = st.sampled_from(
    [*"`|\\ \n\r\t!()[]<>*_#~&;:/.@-=ab", "![](http://x)", "<img src=x>", "\u2028", "`|`", "\\|"]
)
TEXTS = st.one_of(st.lists(ALPHABET, max_size=30).map("".join), st.text(max_size=60))
HARMLESS = {
    *("paragraph_open", "paragraph_close", "inline", "bullet_list_open", "bullet_list_close", "list_item_open"),
    *("list_item_close", "table_open", "table_close", "thead_open", "thead_close", "tbody_open", "tbody_close"),
    *("tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close"),
}


def tokens(markdown: str) -> list[list[Token]]:
    """What each parser finds, inline tokens behind their block's."""
    found = []
    for parser in PARSERS:
        blocks = parser.parse(markdown)
        found.append([token for block in blocks for token in (block, *(block.children or ()))])
    return found


def kinds(markdown: str) -> set[str]:
    return {token.type for of_parser in tokens(markdown) for token in of_parser} - HARMLESS


def spans(markdown: str) -> list[list[str]]:
    return [[token.content for token in of_parser if token.type == "code_inline"] for of_parser in tokens(markdown)]


def on_one_line(text: str) -> str:
    return " ".join(text.split())


@given(TEXTS)
def test_a_text_is_one_code_span_that_shows_it(text: str) -> None:
    assert kinds(code(text)) <= {"code_inline"} or not on_one_line(text)
    shown = on_one_line(text)
    if shown and len(shown) <= LONGEST and shown.isprintable():
        assert spans(code(text)) == [[shown]] * len(PARSERS)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_no_text_breaks_out_of_a_table(rows: list[tuple[str, str]]) -> None:
    markdown = table(
        ("id", "text", "score"), [(code(one), code(other), "1") for one, other in rows], numbers=("score",)
    )
    assert kinds(markdown) <= {"code_inline", "text", "em_open", "em_close"}
    for of_parser in tokens(markdown):
        assert sum(token.type == "tr_open" for token in of_parser) == len(rows) + 1
        assert sum(token.type == "td_open" for token in of_parser) == 3 * len(rows)
    for found in spans(markdown):
        assert len(found) == sum(bool(on_one_line(text)) for row in rows for text in row)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_no_text_breaks_out_of_a_list(texts: list[str]) -> None:
    markdown = bullets(map(code, texts))
    assert kinds(markdown) <= {"code_inline", "text", "em_open", "em_close"}
    for of_parser in tokens(markdown):
        assert sum(token.type == "list_item_open" for token in of_parser) == len(texts)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_would_be_an_image_a_link_or_html_is_text(text: str) -> None:
    for markdown in (code(text), bullets([code(text)]), table(("id", "n"), [(code(text), "1"), (code(text), "2")])):
        assert kinds(markdown) <= {"code_inline", "text", "em_open", "em_close"}
    for of_parser in tokens(table(("id", "n"), [(code(text), "1")])):
        assert sum(token.type == "td_open" for token in of_parser) == 2


@given(TEXTS)
def test_in_a_sentence_a_text_is_one_too_unless_no_sign_in_it_means_anything(text: str) -> None:
    assert kinds(f"One found wrong: {inline(text)}") <= {"text", "code_inline", "em_open", "em_close"}
    if inline(text) == text:
        assert not set(text) & set('`*_[]<>!&|\\#~@"\n')
    for plain in ("doc0-0 occurs in 2 rows", "step 1.5: 3 of 4 layers", "l'été (2026)"):
        assert inline(plain) == plain
    for address in ("www.foreign.example", "see http://foreign.example", "a@foreign.example", "ftp:x"):
        assert inline(address) == code(address)


def test_a_bar_in_a_table_is_shown_as_it_is() -> None:
    assert spans(table(("id",), [(code("a|b"),)])) == [["a|b"]] * len(PARSERS)


def test_what_shows_nothing_is_seen() -> None:
    assert code("a\u202eb\x07c") == "`a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}c`"
    assert code(" \n") == "*empty*"


def test_long_texts_are_cut() -> None:
    assert len(code("a" * 10_000)) == LONGEST + 2
    assert "…" in code("a" * 10_000)


def test_a_picture_comes_with_the_page() -> None:
    (image,) = [token for token in tokens(picture(b"\x89PNG", "spectrum"))[0] if token.type == "image"]
    assert str(image.attrs["src"]).startswith("data:image/png;base64,")


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_check_found_is_text_on_its_page(text: str) -> None:
    """Dagster shows the description of a check as Markdown too."""
    result = check_result("all is well", [f"the id {text} stands twice", "another"])
    assert result.description
    assert kinds(result.description) <= {"code_inline", "text"}
    assert kinds(str(result.metadata["first"].value)) <= {"code_inline"}


def test_all_markdown_of_the_project_is_put_together_here() -> None:
    """A picture, a list or a table: `MetadataValue.md` gets nothing else, and there is no other way to Markdown."""
    found = 0
    for file in [*(ROOT / "lorif_assets").rglob("*.py"), *(ROOT / "resources").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Attribute | ast.Name):
                assert "MarkdownMetadataValue" not in ast.unparse(node), file
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("MetadataValue.md"):
                (argument,) = node.args
                assert isinstance(argument, ast.Call), f"{file}:{node.lineno}"
                where = f"{file}:{node.lineno} shows Markdown that pages/markdown.py did not make"
                assert ast.unparse(argument.func) in {"markdown.table", "markdown.bullets", "markdown.picture"}, where
                found += 1
    assert found >= 8
