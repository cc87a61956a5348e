"""`lorif materialize`: everything active, brought up to date in this process."""

from collections import Counter
from collections.abc import Iterable, Sequence

import click
import dagster as dg
from rich.console import Console
from rich.text import Text

from lorif_assets.assets.graph import GRAPH
from lorif_assets.automation.check_runs import failed_checks
from lorif_assets.automation.materialization import AssetUpdate, bring_up_to_date
from lorif_assets.automation.selection import Outlook, outlook, selected_assets
from lorif_assets.automation.sleepers import wake
from lorif_assets.cli.environment import config_option, dagster_home, project_of_settings
from lorif_assets.data.rows.rejection_reasons import in_words, rows_set_aside
from lorif_assets.errors import LorifError
from lorif_assets.freshness.leftovers import Leftovers
from lorif_assets.freshness.view import Asked, Freshness
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.pages.number_format import counted
from lorif_assets.pages.terminal_console import TerminalConsole
from lorif_assets.project import Project


@click.command()
@click.option(
    "--asset", "names", multiple=True, help="Only this asset and what it is made from; give it again for more of them."
)
@click.option("--checkpoint", "checkpoints", multiple=True, help="Only this checkpoint, active or not.")
@click.option("--query-set", "query_sets", multiple=True, help="Only this query set, active or not.")
@click.option(
    "--rehash",
    is_flag=True,
    help="Read all data, queries and checkpoints again, in case a file was replaced by one of the same size and time.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be computed, and why; compute nothing.")
@config_option
def materialize(
    names: tuple[str, ...], checkpoints: tuple[str, ...], query_sets: tuple[str, ...], *, rehash: bool, dry_run: bool
) -> None:
    """Bring everything active up to date, in this process; Dagster's UI shows the runs."""
    console, project, asked = TerminalConsole(), project_of_settings(), Asked(checkpoints, query_sets)
    selection = selected_assets(project.settings, names)
    freshness = Freshness.of(project, asked)
    found = freshness.discovered
    # Where none is complete, the error says why.
    for note in found.notes if found.checkpoints else ():
        console.print(Text(note, style="yellow"), soft_wrap=True)
    if checkpoints and (others := [name for name in freshness.active_checkpoints if name not in checkpoints]):
        console.print(f"with {', '.join(others)}, whose scores theirs are averaged with", soft_wrap=True)
    if dry_run:
        for what, reason in found.faults.items():
            console.print(Text(f"{what}: {reason}", style="red"), soft_wrap=True)
        print_outlook(console, outlook(freshness, selection))
        return
    computed: list[str] = []
    told: set[str] = set()
    with dg.DagsterInstance.from_config(str(dagster_home())) as instance:
        for sentence in wake(instance):
            console.print(Text(sentence, style="yellow"), soft_wrap=True)
        try:
            for update in bring_up_to_date(
                instance, GRAPH, project, console.out, selection=selection, asked=asked, rehash=rehash
            ):
                print_update(console, update)
                if update.asset == TRAINING_EXAMPLES.name:
                    # Before the hours that are spent on them.
                    print_leftovers(console, project, told)
                if update.partitions:
                    computed.append(update.asset)
        except LorifError:
            print_leftovers(console, project, told)
            print_failed_checks(console, instance, project, computed, asked)
            raise
        print_leftovers(console, project, told)
        print_failed_checks(console, instance, project, computed, asked)


def print_leftovers(console: Console, project: Project, told: set[str]) -> None:
    """Print what stands in the lake and nothing outside names, unless it was told before, and add it to what was."""
    notes = Leftovers.of(Freshness.of(project)).notes(project.settings.automation)
    for note in notes:
        if note not in told:
            console.print(Text(note, style="yellow"), soft_wrap=True)
    told.update(notes)


def print_failed_checks(
    console: Console, instance: dg.DagsterInstance, project: Project, computed: Sequence[str], asked: Asked
) -> None:
    """Print which checks of assets, run now, do not pass."""
    for failure in failed_checks(instance, GRAPH, computed, project, asked):
        console.print(Text(failure.sentence, style="yellow" if failure.is_warning else "red"), soft_wrap=True)


def print_outlook(console: Console, outlooks: Iterable[Outlook]) -> None:
    """Print what would be computed of each asset, on a line."""
    for one in outlooks:
        said = []
        if one.partitions:
            reasons = Counter(partition.reason for partition in one.partitions.values())
            said.append(
                f"{counted(len(one.partitions), 'partition')}: {in_words(reasons)}; {', '.join([*one.partitions][:3])}"
            )
        if one.may_follow:
            said.append("what follows from those above")
        console.print(Text(f"{one.asset:<22} {', and '.join(said) or 'up to date'}"), soft_wrap=True)


def print_update(console: Console, update: AssetUpdate) -> None:
    """Print what was done for one asset, on a line, and below it what it has set aside."""
    done = counted(len(update.partitions), "partition") if update.partitions else ""
    failed = f"{len(update.failed)} failed" if update.failed else ""
    waiting = f"{len(update.waiting)} left out, as they are made from what failed" if update.waiting else ""
    said = ", ".join(part for part in (done, failed, waiting) if part) or "up to date"
    console.print(Text(f"{update.asset:<22} {said}", style="red" if update.failed else ""), soft_wrap=True)
    if update.rejected:
        console.print(Text(f"  {rows_set_aside(update.rejected)}", style="yellow"), soft_wrap=True)
