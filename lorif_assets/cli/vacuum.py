"""`lorif vacuum`: superseded files, listed and deleted."""

import click

from lorif_assets.attribution.stored.vacuum import delete, superseded_files
from lorif_assets.cli.environment import config_option, project_of_settings


@click.command()
@click.option("--dry-run", is_flag=True, help="List what would be deleted, and delete nothing.")
@config_option
def vacuum(dry_run: bool) -> None:
    """Delete files of the lake that nothing points to any more and that are older than `vacuum.retention_hours`."""
    project = project_of_settings()
    found = superseded_files(project.lake, project.settings.vacuum.retention_hours)
    for file in found:
        click.echo(f"{file.size:>14,}  {file.path}")
    if not dry_run:
        delete(project.lake, found)
    size = sum(file.size for file in found) / 1e6
    click.echo(f"{len(found)} files, {size:,.1f} MB, {'would be ' if dry_run else ''}deleted")
