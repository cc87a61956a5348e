"""Influences as tables in a terminal."""

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorif_assets.attribution.score_queries import LOWEST
from lorif_assets.data.passages import passage_metadata, passage_text, passages
from lorif_assets.lake.lake import Lake


def print_influences(console: Console, lake: Lake, scores: pl.DataFrame, shown: int) -> None:
    """Print the leading proponents and opponents of one query.

    Args:
        console: where to.
        lake: for the texts.
        scores: rows of `query_scores` of one query.
        shown: rows of each side.
    """
    for title, style, rows in (
        (
            "proponents: training on them lowered the loss of this completion",
            "green",
            scores.filter(pl.col("side") != LOWEST),
        ),
        ("opponents: training on them raised it", "red", _opponents(scores)),
    ):
        leading = rows.filter(pl.col("rank") <= shown).sort("rank")
        table = Table(title=title, title_justify="left", expand=True, title_style=style)
        table.add_column("#", justify="right", width=3)
        table.add_column("score", justify="right", width=9)
        table.add_column("example", width=28, overflow="fold")
        table.add_column("text", ratio=1)
        found = passages(lake, leading.select("shard", "example_id").iter_rows())
        for row in leading.iter_rows(named=True):
            passage = found.get((row["shard"], row["example_id"]))
            about = ", ".join(str(value) for value in passage_metadata(passage).values()) if passage else ""
            text = " ".join(passage_text(passage).split()) if passage else "(no longer in the training data)"
            table.add_row(
                str(row["rank"]),
                f"{row['score']:.3g}",
                Text(f"{row['example_id']}\n{about}" if about else row["example_id"]),
                Text(text[:220] + (" ..." if len(text) > 220 else "")),
            )
        console.print(table)


def _opponents(scores: pl.DataFrame) -> pl.DataFrame:
    """Return the lowest scores, also where every pair is stored in one ranking."""
    lowest = scores.filter(pl.col("side") == LOWEST)
    if not lowest.is_empty():
        return lowest
    return scores.with_columns(rank=pl.col("rank").max() - pl.col("rank") + 1)
