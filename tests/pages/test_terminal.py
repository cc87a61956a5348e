"""Influences in a terminal."""

import io
import re
from collections.abc import Mapping

import polars as pl
import pytest
from rich.console import Console

from lorif_assets.pages.terminal import print_influences


def test_what_has_a_positive_score_is_not_said_to_have_raised_the_loss() -> None:
    rows = {"side": ["highest", "highest", "lowest", "lowest"], "rank": [1, 2, 1, 2], "score": [3.0, 2.0, -1.0, 2.0]}
    names = ["helps/most", "helps", "harms", "helps"]
    table = pl.DataFrame({**rows, "shard": "s", "example_id": names, "text": names, "metadata": "{}"})
    said = io.StringIO()
    print_influences(Console(file=said, width=120), table, 10)
    proponents, opponents = said.getvalue().split("opponents: ")
    assert "helps/most" in proponents
    assert "harms" not in proponents
    assert "harms" in opponents
    assert "helps" not in opponents


@pytest.mark.parametrize(
    ("asked", "above", "below"),
    [
        ({}, "made the completion more likely", "made the completion less likely"),
        (
            {"span": "hen"},
            "made that part of the completion more likely",
            "made that part of the completion less likely",
        ),
        ({"against": " A hen."}, "made the completion more likely than the other", "less likely than the other"),
        ({"weighted": []}, "made the completions, by their weights, more likely", "by their weights, less likely"),
        ({"scalar": {"name": "f"}}, "raised the scalar", "lowered the scalar"),
    ],
)
def test_the_sides_say_what_training_on_them_did_to_what_is_asked_about(
    asked: Mapping[str, object], above: str, below: str
) -> None:
    rows = {"side": ["highest", "lowest"], "rank": [1, 1], "score": [3.0, -1.0]}
    table = pl.DataFrame({**rows, "shard": "s", "example_id": "e", "text": "e", "metadata": "{}"})
    said = io.StringIO()
    print_influences(Console(file=said, width=120), table, 10, asked=asked)
    assert f"proponents: training on them {above}\n" in re.sub(" +\n", "\n", said.getvalue())
    assert re.search(rf"opponents: training on them [^\n]*{below} *\n", said.getvalue())


@pytest.mark.parametrize("name", ["q-1", "a/very/long/name/of/an/example/000017"])
def test_a_narrow_terminal_shows_more_of_the_text_than_of_the_name(name: str) -> None:
    text = "狐狸住在河边" * 8
    row = {
        "side": "all",
        "rank": 1,
        "score": 3.0,
        "relative_score": 1.0,
        "shard": "s",
        "example_id": name,
        "text": text,
    }
    said = io.StringIO()
    print_influences(Console(file=said, width=60), pl.DataFrame([{**row, "metadata": "{}"}]), 10)
    cells = [line.split("│") for line in said.getvalue().splitlines() if line.startswith("│")]
    assert "".join(cell[3].strip() for cell in cells) == name
    assert "".join(cell[4].strip() for cell in cells) == text
    # Each of its characters is two columns wide.
    assert len(cells) < 10
