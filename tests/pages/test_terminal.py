"""Influences in a terminal."""

import io

import polars as pl
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
