"""`lorif init`: a settings file to start from."""

from pathlib import Path

import click

from lorif_assets.config.settings import CONFIG_NAME
from lorif_assets.config.template import settings_template
from lorif_assets.errors import LorifError


@click.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default=Path(CONFIG_NAME))
def init(path: Path) -> None:
    """Write a settings file in which every field is explained."""
    if path.exists():
        raise LorifError(f"{path} already exists; remove it first, or give another name")
    path.write_text(settings_template())
    click.echo(f"wrote {click.format_filename(path)}: name your sources and checkpoints in it, then run `lorif doctor`")
