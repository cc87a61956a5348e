"""Notebooks as pages of the site."""

import runpy
from typing import Any

import pytest

from tests.docs.pages import ROOT

PAGE = runpy.run_path(str(ROOT / "docs/site_hooks.py"))["notebook_page"]


def cell(kind: str, source: str, *outputs: dict[str, Any]) -> dict[str, Any]:
    return {"cell_type": kind, "source": source.splitlines(keepends=True), "outputs": list(outputs)}


def test_text_and_code_stand_in_their_order() -> None:
    page = PAGE({"cells": [cell("markdown", "# Title\n\nWords."), cell("code", "a = 1\nb = 2")]})
    assert page == "# Title\n\nWords.\n\n```python\na = 1\nb = 2\n```\n"


@pytest.mark.parametrize(
    ("output", "shown"),
    [
        ({"output_type": "stream", "text": ["one\n", "two\n"]}, "```text\none\ntwo\n```"),
        ({"data": {"text/plain": ["1"]}}, "```text\n1\n```"),
        ({"data": {"text/plain": ["x"], "text/html": ["<p>a\n", "\n", "b</p>"]}}, "<div>\n<p>a\nb</p>\n</div>"),
        ({"data": {"image/png": "QUJD\n", "text/html": ["x"]}}, 'src="data:image/png;base64,QUJD"'),
    ],
)
def test_the_richest_form_of_an_output_is_shown(output: dict[str, Any], shown: str) -> None:
    assert shown in PAGE({"cells": [cell("code", "f()", output)]})
