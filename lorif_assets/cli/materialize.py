"""`lorif materialize`: everything active, brought up to date in this process."""

import click
import dagster as dg
from rich.console import Console
from rich.text import Text

from lorif_assets.assets.graph import ASSETS, assets_in_use
from lorif_assets.automation.check_runs import failed_checks
from lorif_assets.automation.materialization import AssetUpdate, bring_up_to_date
from lorif_assets.cli.environment import config_option, dagster_home
from lorif_assets.data.rejection_reasons import rows_set_aside
from lorif_assets.freshness.discovery import discover
from lorif_assets.freshness.leftovers import Leftovers
from lorif_assets.freshness.view import Freshness
from lorif_assets.project import Project


@click.command()
@click.option(
    "--rehash",
    is_flag=True,
    help="Read all data, queries and checkpoints again, in case a file was replaced by one of the same size and time.",
)
@config_option
def materialize(*, rehash: bool) -> None:
    """Bring everything active up to date, in this process; Dagster's UI shows the runs."""
    console = Console()
    with dg.DagsterInstance.from_config(str(dagster_home())) as instance:
        project = Project.open()
        in_use = assets_in_use(project.settings)
        found = discover(project)
        # Where none is complete, the error says why.
        for note in found.notes if found.checkpoints else ():
            console.print(Text(note, style="yellow"), soft_wrap=True)
        computed = []
        try:
            for update in bring_up_to_date(instance, ASSETS, project, console.out, selection=in_use, rehash=rehash):
                print_update(console, update)
                if update.partitions:
                    computed.append(update.asset)
        finally:
            for note in Leftovers.of(Freshness.of(project)).notes(project.settings.automation):
                console.print(Text(note, style="yellow"), soft_wrap=True)
            for failure in failed_checks(instance, ASSETS, computed, project):
                line = f"check {failure.check} of {failure.asset} does not pass: {failure.description}"
                console.print(Text(line, style="yellow" if failure.is_warning else "red"), soft_wrap=True)


def print_update(console: Console, update: AssetUpdate) -> None:
    """Print what was done for one asset, on a line, and below it what it has set aside."""
    done = f"{len(update.partitions)} partitions" if update.partitions else ""
    failed = f"{len(update.failed)} failed" if update.failed else ""
    waiting = f"{len(update.waiting)} left out, as they are made from what failed" if update.waiting else ""
    said = ", ".join(part for part in (done, failed, waiting) if part) or "up to date"
    console.print(Text(f"{update.asset:<22} {said}", style="red" if update.failed else ""), soft_wrap=True)
    if update.rejected:
        console.print(Text(f"  {rows_set_aside(update.rejected)}", style="yellow"), soft_wrap=True)
