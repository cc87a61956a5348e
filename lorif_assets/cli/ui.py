"""`lorif ui`: Dagster's UI."""

import os
import sys
from pathlib import Path

import click

from lorif_assets.cli.environment import HOME_VARIABLE, config_option, dagster_home


@click.command()
@click.option("--port", default=3000, show_default=True, help="Port of the web server.")
@config_option
def ui(port: int) -> None:
    """Open Dagster's UI on this project."""
    os.environ[HOME_VARIABLE] = str(dagster_home())
    program = Path(sys.executable).with_name("dagster")
    os.execv(program, [str(program), "dev", "-m", "lorif_assets.definitions", "--port", str(port)])  # noqa: S606
