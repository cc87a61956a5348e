"""`lorif ui`: Dagster's UI."""

import os
import sys
from pathlib import Path

import click
import dagster as dg

from lorif_assets.automation.dagster_home import HOME_VARIABLE
from lorif_assets.automation.sleepers import wake
from lorif_assets.cli.environment import config_option, dagster_home
from lorif_assets.config.settings import CONFIG_VARIABLE, settings_file


@click.command()
@click.option("--port", default=3000, show_default=True, help="Port of the web server.")
@config_option
def ui(port: int) -> None:
    """Open Dagster's UI on this project."""
    home, settings = dagster_home(), settings_file()
    os.environ[HOME_VARIABLE], os.environ[CONFIG_VARIABLE] = str(home), str(settings)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for sentence in wake(instance):
            click.echo(sentence)
    program = Path(sys.executable).with_name("dagster")
    # Dagster reads a file `.env` of the folder that it starts in, which may name another home.
    os.chdir(home)
    folder = str(settings.parent)
    arguments = ["dev", "-m", "lorif_assets.definitions", "--working-directory", folder, "--port", str(port)]
    os.execv(program, [str(program), *arguments])  # noqa: S606
