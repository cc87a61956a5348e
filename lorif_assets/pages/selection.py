"""A selection of training data in the terminal."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorif_assets.influences.selection import SelectedGroups, Selection

_MOST_GROUPS = 20


def print_selection(console: Console, selection: Selection, output: Path | None) -> None:
    """Print how many rows of each source are taken, and where they were written; None: nowhere."""
    is_ranked = not selection.wanted.ids
    title = f"selected at {selection.wanted.checkpoint}" if is_ranked else "selected by id"
    table = Table(title=title, title_justify="left")
    for heading in ("source", "rows", "of", "share", *(["mean value"] if is_ranked else [])):
        table.add_column(heading, justify="left" if heading == "source" else "right", overflow="fold")
    for row in selection.summary.iter_rows(named=True):
        mean = "" if row["mean_value"] is None else f"{row['mean_value']:+.3f}"
        cells = row["source"], f"{row['rows']:,}", f"{row['of']:,}", f"{row['share']:.1%}", mean
        table.add_row(*cells[: len(table.columns)])
    console.print(table)
    if selection.wanted.by and selection.groups:
        _print_groups(console, selection.groups)
    if is_ranked:
        console.print("The value is the mean over the queries of a score in standard deviations of the query's scores.")
    if selection.wanted.without_duplicates:
        console.print(f"{selection.n_repeats:,} near-duplicates were left out.")
    if selection.n_unread:
        console.print(
            f"{selection.n_unread:,} attributed examples were not looked at: no source has their shards any more, or they "
            "cannot be read. `lorif doctor` says why; `lorif withdraw` takes shards out of the scores."
        )
    where = "nothing is written" if output is None else f"written to {escape(str(output))}"
    console.print(f"{selection.rows.height:,} rows: {where}.", soft_wrap=True)


def _print_groups(console: Console, found: SelectedGroups) -> None:
    table = Table()
    for heading in (found.column, "rows", "of"):
        table.add_column(escape(heading), justify="left" if heading == found.column else "right", overflow="fold")
    for group in found.groups[:_MOST_GROUPS]:
        table.add_row(escape(group.name), f"{group.n_rows:,}", f"{group.n_examples:,}")
    console.print(table)
    if len(found.groups) > _MOST_GROUPS:
        console.print(f"and {len(found.groups) - _MOST_GROUPS:,} more")
