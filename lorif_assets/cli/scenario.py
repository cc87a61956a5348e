"""`lorif scenario`: the demo's data and checkpoints change under a running daemon."""

import sys
from pathlib import Path

import click

from lorif_assets.cli.termination import ended_in_order
from lorif_assets.config.settings import DEMO_DIRECTORY
from lorif_assets.demo.scenario import run_scenario
from lorif_assets.pages.terminal_console import TerminalConsole


@click.command()
@click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False), default=Path("scenario"), show_default=True
)
@click.option(
    "--demo",
    "demo_directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEMO_DIRECTORY,
    show_default=True,
    help="A finished demo, whose data and models are copied.",
)
def scenario(directory: Path, demo_directory: Path) -> None:
    """Change data and checkpoints under a running daemon, and show that attributions stay up to date."""
    with ended_in_order():
        same = run_scenario(directory, demo_directory, TerminalConsole())
    if not same:
        sys.exit(1)
