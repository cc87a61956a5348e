"""`lorif verify`: every file of the lake, read and compared with its checksum."""

import json
import sys

import click
from rich.console import Console
from rich.text import Text

from lorif_assets.cli.environment import config_option, project_of_settings
from lorif_assets.lake.verification import Verification, files_to_verify
from lorif_assets.lake.verification import verify as verify_lake
from lorif_assets.pages.terminal_console import TerminalConsole
from lorif_assets.progress import Progress


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@config_option
def verify(*, as_json: bool) -> None:
    """Read all of the lake, and name what is damaged and what makes it again; ends with 1 where something is."""
    project = project_of_settings()
    files = files_to_verify(project.lake)
    with Progress("verifying", sum(files.values()), "B") as progress:
        found = verify_lake(project.lake, files, progress.advance)
    if as_json:
        click.echo(json.dumps(found.document(), indent=2))
    else:
        _show(found, TerminalConsole())
    if found.damage:
        sys.exit(1)


def _show(found: Verification, console: Console) -> None:
    for damage in found.damage:
        console.print(Text(f"damaged: {damage}", style="red"), soft_wrap=True)
    console.print(f"{found.n_files:,} files, {found.n_bytes / 1e6:,.1f} MB read: ", end="")
    console.print(Text(f"{len(found.damage):,} damaged", style="red") if found.damage else "all as they were written")
    if found.unchecked:
        console.print(
            Text(
                f"{found.unchecked:,} of them can be read, and are unchecked: they were written without a checksum, by an "
                "earlier version or by a process that was killed",
                style="yellow",
            ),
            soft_wrap=True,
        )
