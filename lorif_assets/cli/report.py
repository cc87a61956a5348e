"""`lorif report`: the newest report, opened in a browser."""

import os
import sys
import webbrowser
from pathlib import Path

import click

from lorif_assets.cli.environment import config_option, project_of_settings
from lorif_assets.errors import TableError
from lorif_assets.pages.stored_reports import newest_reports


@click.command()
@click.option("--checkpoint", help="Default: the newest that has a report.")
@click.option("--query-set", help="Default: the one whose report was written last.")
@click.option("--print", "only_print", is_flag=True, help="Print where it is, and open nothing.")
@config_option
def report(checkpoint: str | None, query_set: str | None, *, only_print: bool) -> None:
    """Open the newest report, and print where it is."""
    newest, *others = newest_reports(project_of_settings(), checkpoint, query_set)
    is_local = "://" not in newest.where
    if is_local and not Path(newest.where).is_file():
        raise TableError(
            f"the report {newest.where} is gone; materialize `attribution_report` for {newest.checkpoint} and "
            f"{newest.query_set} again"
        )
    click.echo(newest.where)
    if others:
        names = ", ".join(one.query_set for one in others)
        click.echo(f"{newest.checkpoint} has reports of {names} too: --query-set names one", err=True)
    if is_local and not only_print and _has_browser():
        webbrowser.open(Path(newest.where).as_uri())


def _has_browser() -> bool:
    """Whether a person looks on: the path is not read by a program, and there is a screen."""
    is_linux = sys.platform.startswith("linux")
    return sys.stdout.isatty() and (
        not is_linux or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    )
