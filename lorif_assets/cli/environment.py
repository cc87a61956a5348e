"""What commands share: which settings file they use, and where Dagster's home is."""

import os
from pathlib import Path

import click

from lorif_assets.automation.dagster_home import dagster_home as home_of_project
from lorif_assets.config.settings import CONFIG_NAME, CONFIG_VARIABLE, existing_settings_file
from lorif_assets.project import Project


def _use(context: click.Context, parameter: click.Parameter, config: Path | None) -> None:
    del context, parameter
    if config:
        # Dagster's processes read it too.
        os.environ[CONFIG_VARIABLE] = str(config.absolute())


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=_use,
    expose_value=False,
    help=f"Settings file; default: ${CONFIG_VARIABLE}, else ./{CONFIG_NAME}, else the demo's.",
)


def dagster_home() -> Path:
    """Return Dagster's home of the project that commands use, made if it is not there.

    Raises:
        SettingsError: there is no settings file, or the home is no folder that can be written to.
    """
    return home_of_project(existing_settings_file())


def project_of_settings() -> Project:
    """Return the project that commands use; where none is, nothing is left behind.

    Raises:
        SettingsError: there is no settings file, or a setting is wrong.
    """
    return Project.open(existing_settings_file())
