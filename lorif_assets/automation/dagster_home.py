"""What makes the folder of a lorif.toml a Dagster project: its home, its workspace, and what Git is to leave alone."""

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from lorif_assets.config.settings import CONFIG_NAME, CONFIG_VARIABLE
from lorif_assets.errors import SettingsError

HOME_NAME = "dagster_home"
HOME_VARIABLE = "DAGSTER_HOME"
_INSTANCE = "dagster.yaml"
_WORKSPACE = """\
load_from:
  - python_module:
      module_name: lorif_assets.definitions
      working_directory: .
"""
_GIT_IGNORES = """\
# What is computed, and what holds on this machine alone.
/lake/
/mlflow.db
/mlruns/
/registered_models/
/dagster_home/*
!/dagster_home/dagster.yaml
/.env
.logs_queue/
.tmp_dagster_home_*/
"""


def home_beside(settings: Path) -> Path:
    """Return Dagster's home of the project of a settings file, absolute."""
    return settings.absolute().parent / HOME_NAME


def make_home(home: Path) -> None:
    """Make Dagster's home, with the settings of the instance (pools, retention, no telemetry); one that is there stays."""
    if not home.exists():
        home.mkdir(parents=True)
        (home / _INSTANCE).write_text(files(__package__).joinpath(_INSTANCE).read_text())


def named_home(settings: Path) -> Path:
    """Return Dagster's home of the project of a settings file, which may not be there: $DAGSTER_HOME, else `home_beside`."""
    named = os.environ.get(HOME_VARIABLE)
    return Path(named).absolute() if named else home_beside(settings)


def dagster_home(settings: Path) -> Path:
    """Return Dagster's home of the project of a settings file, made if it is not there.

    Raises:
        SettingsError: it is no folder that can be written to.
    """
    home = named_home(settings)
    try:
        make_home(home)
        fault = "" if home.is_dir() and os.access(home, os.W_OK | os.X_OK) else "it is read-only"
        fault = "it is a file" if home.is_file() else fault
    except OSError as error:
        fault = "it is a file" if home.is_file() else str(error.strerror)
    if fault:
        is_named = bool(os.environ.get(HOME_VARIABLE))
        remedy = f"correct ${HOME_VARIABLE}" if is_named else f"set ${HOME_VARIABLE} to a folder of your own"
        raise SettingsError(f"Dagster cannot keep its records in {home}: {fault}; {remedy}")
    # The project's dagster.yaml sets this too; a home of the user's own may have none.
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    return home


def write_dagster_project(settings: Path) -> Mapping[Path, bool]:
    """Write what is missing beside a settings file for `dagster dev` to work in its folder.

    Where $DAGSTER_HOME is set, that home is used, and none is made.

    Returns:
        By file, whether it was written; those that were there stay as they are.
    """
    folder, home = settings.absolute().parent, home_beside(settings)
    contents = {folder / "workspace.yaml": _WORKSPACE, folder / ".gitignore": _GIT_IGNORES}
    written: dict[Path, bool] = {}
    if not os.environ.get(HOME_VARIABLE):
        written[home / _INSTANCE] = not home.exists()
        make_home(home)
        contents[folder / ".env"] = _environment(settings.absolute(), home)
    for file, text in contents.items():
        written[file] = not file.exists()
        if written[file]:
            # A path may have bytes that are no UTF-8.
            file.write_text(text, encoding="utf-8", errors="surrogateescape")
    return written


def _environment(settings: Path, home: Path) -> str:
    # Dagster takes absolute paths alone.
    lines = [
        "# Read by `dagster dev` in this folder; correct it where the folder is moved.",
        _variable(HOME_VARIABLE, home),
    ]
    if settings.name != CONFIG_NAME:
        lines.append(_variable(CONFIG_VARIABLE, settings))
    return "\n".join(lines) + "\n"


def _variable(name: str, path: Path) -> str:
    quoted = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"{name}='{quoted}'"
