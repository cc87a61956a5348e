"""What commands share: which settings file they use, and where Dagster's home is."""

import os
from pathlib import Path

import click

from lorif_assets.config.settings import CONFIG_NAME, CONFIG_VARIABLE

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
    """Return Dagster's home: $DAGSTER_HOME, else ./dagster_home, created if it does not exist."""
    home = Path(os.environ.get(HOME_VARIABLE) or "dagster_home").absolute()
    home.mkdir(parents=True, exist_ok=True)
    # The project's dagster.yaml sets this too; a home of the user's own may have none.
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    return home
