"""`lorif materialize`: everything active, brought up to date in this process."""

import click
import dagster as dg
from rich.console import Console
from rich.text import Text

from lorif_assets.assets.graph import ASSETS, assets_in_use
from lorif_assets.automation.check_runs import failed_checks
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.cli.environment import config_option, dagster_home
from lorif_assets.data.rejection_reasons import rows_set_aside
from lorif_assets.freshness.discovery import discover
from lorif_assets.project import Project


@click.command()
@config_option
def materialize() -> None:
    """Bring everything active up to date, in this process; Dagster's UI shows the runs."""
    console = Console()
    with dg.DagsterInstance.from_config(str(dagster_home())) as instance:
        project = Project.open()
        in_use = assets_in_use(project.settings)
        found = discover(project)
        # Where none is complete, the error says why.
        for note in found.notes if found.checkpoints else ():
            console.print(Text(note, style="yellow"), soft_wrap=True)

        def announce(asset: str, partitions: int) -> None:
            if partitions:
                console.print(f"[dim]{asset:<22} {partitions} partitions to compute[/]", highlight=False)

        computed = []
        for update in bring_up_to_date(instance, ASSETS, project, announce, selection=in_use):
            done = f"{len(update.partitions)} partitions" if update.partitions else "up to date"
            console.print(f"{update.asset:<22} {done}")
            if update.rejected:
                console.print(Text(f"  {rows_set_aside(update.rejected)}", style="yellow"), soft_wrap=True)
            if update.partitions:
                computed.append(update.asset)
        for failure in failed_checks(instance, ASSETS, computed, project):
            line = f"check {failure.check} of {failure.asset} failed: {failure.description}"
            console.print(Text(line, style="yellow" if failure.is_warning else "red"), soft_wrap=True)
