"""What commands share: which settings file they use, and where Dagster's home is."""

import os
from pathlib import Path

import click

from lorif_assets.config.settings import CONFIG_NAME, CONFIG_VARIABLE
from lorif_assets.errors import SettingsError

HOME_VARIABLE = "DAGSTER_HOME"


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
    """Return Dagster's home: $DAGSTER_HOME, else ./dagster_home, created if it does not exist.

    Raises:
        SettingsError: it is no folder that can be written to.
    """
    named = os.environ.get(HOME_VARIABLE)
    home = Path(named or "dagster_home").absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
        fault = "" if os.access(home, os.W_OK | os.X_OK) else "it is read-only"
    except OSError as error:
        fault = "it is a file" if home.is_file() else str(error.strerror)
    if fault:
        remedy = f"correct ${HOME_VARIABLE}" if named else f"set ${HOME_VARIABLE} to a folder of your own"
        raise SettingsError(f"Dagster cannot keep its records in {home}: {fault}; {remedy}")
    # The project's dagster.yaml sets this too; a home of the user's own may have none.
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    return home
