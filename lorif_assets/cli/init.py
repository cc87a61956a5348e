"""`lorif init`: a folder becomes a project, with a settings file for what lies in it."""

from pathlib import Path

import click

from lorif_assets.automation.dagster_home import write_dagster_project
from lorif_assets.config.first_settings import first_settings
from lorif_assets.config.settings import CONFIG_NAME
from lorif_assets.config.template import settings_template
from lorif_assets.errors import LorifError


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=Path(CONFIG_NAME))
@click.option("--all", "every_field", is_flag=True, help="Write every field with its meaning and default.")
def init(path: Path, *, every_field: bool) -> None:
    """Write a settings file for what lies in a folder, and what makes the folder a Dagster project."""
    file = path / CONFIG_NAME if path.is_dir() else path
    if file.exists():
        raise LorifError(f"{file} already exists; remove it first, or give another name")
    if not file.parent.is_dir():
        raise LorifError(f"{file.parent} does not exist; make the folder first, with or without data in it")
    if every_field:
        file.write_text(settings_template())
        missing = ["sources", "checkpoints"]
    else:
        from lorif_assets.freshness.surroundings import look_around

        found = look_around(file.parent)
        file.write_text(first_settings(found))
        there = {"sources": found.sources, "checkpoints": found.checkpoints, "queries": found.queries}
        missing = [name for name, place in there.items() if not place]
    for written, is_new in write_dagster_project(file).items():
        if not is_new:
            click.echo(f"left {written.relative_to(file.absolute().parent)} as it is")
    named = " and ".join(filter(None, (", ".join(missing[:-1]), *missing[-1:])))
    advice = f"name your {named} in it" if missing else "look it over"
    click.echo(f"wrote {click.format_filename(file)}: {advice}, then run `lorif doctor`")
