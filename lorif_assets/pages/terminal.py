"""Influences as tables in a terminal."""

import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorif_assets.attribution.stored_rankings import Ranking
from lorif_assets.data.passages import passage_metadata
from lorif_assets.pages.answer import WITHDRAWN, opponents, proponents

_MOST_CHARACTERS = 220


def print_influences(console: Console, table: pl.DataFrame, n_rows: int, ranking: Ranking = "plain") -> None:
    """Print the leading proponents and opponents of one query.

    Args:
        console: where to print.
        table: scores of one query with what the examples say, as `with_passages` gives them.
        n_rows: rows to print of each side.
        ranking: that the table's ranks are of.
    """
    column, which = ("score", "") if ranking == "plain" else ("relative_score", ", for their size")
    for title, style, rows in (
        (f"proponents: training on them lowered the loss of this completion{which}", "green", proponents(table)),
        (f"opponents: training on them raised it{which}", "red", opponents(table)),
    ):
        printed = Table(title=title, title_justify="left", expand=True, title_style=style)
        printed.add_column("#", justify="right", width=3)
        printed.add_column("score", justify="right", width=9)
        printed.add_column("example", width=28, overflow="fold")
        printed.add_column("text", ratio=1)
        for row in rows.head(n_rows).iter_rows(named=True):
            about = ", ".join(str(value) for value in passage_metadata(row).values())
            text = WITHDRAWN if row["text"] is None else " ".join(row["text"].split())
            printed.add_row(
                str(row["rank"]),
                f"{row[column]:.3g}",
                Text(f"{row['example_id']}\n{about}" if about else row["example_id"]),
                Text(text[:_MOST_CHARACTERS] + (" ..." if len(text) > _MOST_CHARACTERS else "")),
            )
        console.print(printed)
