"""`lorif status`: which partitions are up to date, missing or out of date, and why."""

import json

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorif_assets.api.status import project_status
from lorif_assets.cli.environment import config_option, project_of_settings
from lorif_assets.data.rows.rejection_reasons import rows_set_aside
from lorif_assets.pages.terminal_console import TerminalConsole


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@config_option
def status(*, as_json: bool) -> None:
    """Show which partitions are up to date, missing or out of date, and why."""
    if as_json:
        found = project_status(project_of_settings())
        click.echo(json.dumps(vars(found) | {"assets": found.assets.to_dicts()}, ensure_ascii=False))
    else:
        show_status(TerminalConsole())


def show_status(console: Console) -> None:
    """Print one line per asset: how many partitions are missing or out of date, and why the first of them is; then what
    each has set aside, and which checkpoints were passed over.
    """
    found = project_status(project_of_settings())
    table = Table(title=f"active checkpoints: {', '.join(found.active_checkpoints) or 'none'}", title_justify="left")
    table.add_column("asset", no_wrap=True)
    table.add_column("missing", justify="right")
    table.add_column("out of date", justify="right")
    table.add_column("why; for instance", overflow="fold")
    for row in found.assets.iter_rows(named=True):
        table.add_row(
            row["asset"],
            str(row["missing"] or ""),
            str(row["stale"] or ""),
            f"{row['reason']}: {row['partition']}" if row["partition"] else "[green]up to date[/]",
        )
    console.print(table)
    for asset, counts in found.rejected.items():
        console.print(Text(f"{asset}: {rows_set_aside(counts)}", style="yellow"), soft_wrap=True)
    for what, reason in found.faults.items():
        console.print(Text(f"{what}: {reason}", style="red"), soft_wrap=True)
    for note in found.notes:
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if found.assets["partition"].drop_nulls().len():
        console.print(
            "An asset is compared with what is stored upstream: start with the first one that is not up to date."
        )
