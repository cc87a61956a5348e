"""`lorif evaluate`: from an attributed project to a table of methods, with the cost known before it starts."""

from collections.abc import Sequence
from pathlib import Path

import click
import dagster as dg
import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lorif_assets.assets.graph import ASSETS, EVALUATION, assets_in_use
from lorif_assets.assets.method_scores import method_scores
from lorif_assets.assets.selection_losses import selection_losses
from lorif_assets.assets.subset_losses import subset_losses
from lorif_assets.automation.materialization import bring_up_to_date
from lorif_assets.automation.selection import outlook
from lorif_assets.cli.environment import config_option, dagster_home, project_of_settings
from lorif_assets.cli.materialize import print_outlook
from lorif_assets.config.methods import method_title
from lorif_assets.errors import SettingsError
from lorif_assets.evaluation.figures import DIFFERENCE, MEAN, shared_per_example
from lorif_assets.evaluation.methods.libraries import require_libraries
from lorif_assets.evaluation.query_sets import active_query_sets
from lorif_assets.evaluation.retraining.external_truth import subset_truth
from lorif_assets.evaluation.retraining.ranked_data import REMOVAL, SELECTION, Experiment
from lorif_assets.evaluation.retraining.trainer_code import changed_trainer_notice
from lorif_assets.freshness.discovery import discover
from lorif_assets.freshness.evaluation import models_left
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.evaluation_tables import EVALUATION_FIGURES, EVALUATION_REPORTS, METHOD_COSTS, SELECTION_LOSSES
from lorif_assets.lake.lake import Lake
from lorif_assets.pages.addresses import evaluation_address
from lorif_assets.pages.evaluation.measurements import selected
from lorif_assets.pages.number_format import counted
from lorif_assets.pages.stored_reports import place_of_page
from lorif_assets.pages.terminal_console import TerminalConsole
from lorif_assets.project import Project

_HEADINGS = (
    "method",
    "LDS",
    "95 % interval",
    "LoRIF more by",
    "bytes/example",
    "shared bytes/example",
    "s per query set",
)


@click.command()
@click.option("--plan", is_flag=True, help="Only show what remains to be done and what it will cost.")
@click.option(
    "--selection",
    is_flag=True,
    help="Only train on what methods select (`evaluation.selection_query_sets`), and show how well that serves the queries.",
)
@config_option
def evaluate(*, plan: bool, selection: bool) -> None:
    """Check the scores against retraining: LoRIF beside other methods. Goes on where it was interrupted."""
    run_evaluation(dagster_home(), TerminalConsole(), plan=plan, selection=selection)


def run_evaluation(home: Path, console: Console, *, plan: bool, selection: bool) -> None:
    """Bring everything up to date, print the cost before models are retrained, and at last the result.

    With `plan`, nothing is computed: only what there is to do, and what it costs, is printed. Of scores that are still to be
    computed, the evaluation's part is known afterwards. With `selection`, that is training on what methods select alone.

    Raises:
        LorifError: an asset raised it; what was finished before stays, and is not computed again.
    """
    project = project_of_settings()
    if selection and not project.settings.evaluation.selection_query_sets:
        raise SettingsError(
            "there is nothing to select for: name query sets in `evaluation.selection_query_sets`, and a way to retrain"
        )
    require_libraries(project.settings.evaluation)
    in_use = assets_in_use(project.settings)
    experiments = (SELECTION,) if selection else (REMOVAL, SELECTION)
    if plan:
        print_outlook(console, outlook(Freshness.of(project), in_use))
        if not selection:
            _show_plan(project, console)
        _show_models_left(project, console, experiments)
        return
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for update in bring_up_to_date(instance, ASSETS, project, console.out, selection=in_use):
            if update.partitions:
                console.print(f"{update.asset:<26} {counted(len(update.partitions), 'partition')}")
        if not selection:
            _show_plan(project, console)
        _show_models_left(project, console, experiments)
        learns = project.settings.influcoder.enabled and project.settings.influcoder.teacher == "subset_losses"
        if learns and not selection:
            # The encoder learns from the retrained models, and is then one of the methods.
            for first in ([subset_losses], in_use):
                list(bring_up_to_date(instance, [*ASSETS, *EVALUATION], project, console.out, selection=first))
        chosen = (method_scores, selection_losses) if selection else EVALUATION
        for update in bring_up_to_date(instance, [*ASSETS, *EVALUATION], project, console.out, selection=chosen):
            done = counted(len(update.partitions), "partition") if update.partitions else "up to date"
            console.print(f"{update.asset:<26} {done}")
    if not selection:
        _show_figures(project.lake, console)
    _show_selections(project, console)
    _show_pages(project.lake, console)


def _show_plan(project: Project, console: Console) -> None:
    settings, lake = project.settings, project.lake
    found = discover(project)
    if not found.subsets:
        console.print("nothing is retrained: `evaluation.trainer`, `command` or `ground_truth` is not set")
        return
    truth_source, query_sets = subset_truth(settings, lake), active_query_sets(settings, lake)
    # Where no query set is read yet, no model is retrained either.
    left = sum(
        len(truth_source.unfinished_seeds(subset, query_sets) if query_sets else truth_source.seeds)
        for subset in found.subsets
    )
    seconds = truth_source.seconds_per_model()
    console.print(
        f"{left} of {len(found.subsets) * len(truth_source.seeds)} models are left to retrain, on "
        f"{settings.evaluation.share:.0%} of the data each: "
        + (f"about {left * seconds / 60:.0f} min at {seconds:.0f} s each" if seconds else "the first will be timed")
    )
    if notice := changed_trainer_notice(settings, lake):
        console.print(Text(notice, style="yellow"), soft_wrap=True)


def _show_models_left(project: Project, console: Console, experiments: Sequence[Experiment]) -> None:
    """Print how many models of experiments with rankings are left to train, and about how long that takes."""
    freshness = Freshness.of(project)
    for experiment in experiments:
        if not experiment.query_sets(project.settings.evaluation):
            continue
        seconds = project.lake.read(experiment.table, ["seconds"])["seconds"].median()
        cost = f": {seconds:.0f} s each" if isinstance(seconds, float) else ""
        left = models_left(freshness, experiment)
        console.print(f"{left} models are left to retrain for `{experiment.table.name}`{cost if left else ''}")


def _show_figures(lake: Lake, console: Console) -> None:
    """Print the linear datamodeling score of each method, with its costs."""
    figures = lake.read(EVALUATION_FIGURES, metric="lds")
    costs = lake.read(METHOD_COSTS).with_columns(shared=shared_per_example())
    for (checkpoint, query_set), group in sorted(figures.group_by("checkpoint", "query_set"), key=lambda item: item[0]):
        table = Table(title=f"linear datamodeling score, {checkpoint}, {query_set}", title_justify="left")
        for heading in _HEADINGS:
            is_name = heading == "method"
            table.add_column(heading, justify="left" if is_name else "right", no_wrap=is_name, overflow="fold")
        differences = {row["method"]: row for row in group.filter(pl.col("statistic") == DIFFERENCE).to_dicts()}
        cost = {
            row["method"]: row
            for row in costs.filter(pl.col("checkpoint") == checkpoint, pl.col("query_set") == query_set).to_dicts()
        }
        for row in group.filter(pl.col("statistic") == MEAN).sort("value", descending=True).to_dicts():
            other = differences.get(row["method"])
            table.add_row(
                row["method"],
                f"{row['value']:.3f}",
                f"{row['low']:.3f} to {row['high']:.3f}",
                f"{other['value']:+.3f} ({other['low']:+.3f} to {other['high']:+.3f})" if other else "",
                f"{cost[row['method']]['bytes_per_example']:,.0f}",
                "" if cost[row["method"]]["shared"] is None else f"{cost[row['method']]['shared']:,.0f}",
                f"{cost[row['method']]['query_seconds']:.1f}",
            )
        console.print(table)


def _show_selections(project: Project, console: Console) -> None:
    """Print the loss after training on what each method selected."""
    rows = project.lake.read(SELECTION_LOSSES)
    for (checkpoint, query_set), group in sorted(rows.group_by("checkpoint", "query_set"), key=lambda item: item[0]):
        for one in selected(group, project.settings.evaluation.bootstrap):
            title = f"trained on {one.n_selected:,} selected examples alone, {checkpoint}, {query_set}"
            table = Table(title=title, title_justify="left")
            for heading in (
                "selected by",
                "loss per token",
                "95 % interval",
                f"{method_title(one.reference)} lower by",
            ):
                is_name = heading == "selected by"
                table.add_column(heading, justify="left" if is_name else "right", no_wrap=is_name, overflow="fold")
            for method, loss in one.losses.items():
                lower = one.lower_by.get(method)
                table.add_row(
                    method,
                    f"{loss.value:.3f}",
                    f"{loss.low:.3f} to {loss.high:.3f}",
                    f"{lower.value:+.3f} ({lower.low:+.3f} to {lower.high:+.3f})" if lower else "",
                )
            console.print(table)


def _show_pages(lake: Lake, console: Console) -> None:
    """Print where the evaluation pages are, each on a line that can be copied."""
    rows = lake.read(EVALUATION_REPORTS, ["checkpoint", "query_set"])
    for address in sorted(evaluation_address(*row) for row in rows.iter_rows()):
        console.print(Text(place_of_page(lake, address)), soft_wrap=True)
