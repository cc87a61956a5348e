"""`lorif demo`: from nothing to a report."""

from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from lorif_assets.cli.environment import dagster_home
from lorif_assets.config.settings import DEMO_DIRECTORY
from lorif_assets.demo.run import run_demo


@click.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEMO_DIRECTORY,
    show_default=True,
    help="Where the demo's data, checkpoints, tables and settings go.",
)
@click.option("--architecture", type=click.Choice(["gpt2", "llama"]), default="gpt2", show_default=True)
@click.option("--fresh", is_flag=True, help="Remove what an earlier demo left, and start over.")
@click.option("--influcoder", is_flag=True, help="Also train a text encoder on influences; takes some minutes more.")
def demo(directory: Path, architecture: Literal["gpt2", "llama"], fresh: bool, influcoder: bool) -> None:
    """Train a small model on Python's documentation and attribute what it says, start to finish."""
    run_demo(
        directory, dagster_home(), fresh=fresh, architecture=architecture, influcoder=influcoder, console=Console()
    )
