"""The command `lorif`: the demo, the state of a project, and attribution from a terminal."""

import os
import sys
from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from lorif_assets.config.settings import CONFIG_NAME, CONFIG_VARIABLE, DEMO_DIRECTORY
from lorif_assets.errors import LorifError

_HOME_VARIABLE = "DAGSTER_HOME"

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help=f"Settings file; default: ${CONFIG_VARIABLE}, else ./{CONFIG_NAME}, else the demo's.",
)


class _Commands(click.Group):
    """Commands whose expected errors are messages, not tracebacks."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except LorifError as error:
            Console(stderr=True).print(f"[bold red]error:[/] {_plain(error)}", highlight=False)
            sys.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lorif-assets")
def main() -> None:
    """Which training examples made the model say this?"""


@main.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEMO_DIRECTORY,
    show_default=True,
    help="Where the demo's data, checkpoints, tables and settings go.",
)
@click.option("--architecture", type=click.Choice(["gpt2", "llama"]), default="gpt2", show_default=True)
@click.option("--fresh", is_flag=True, help="Remove what an earlier demo left, and start over.")
@click.option("--influcoder", is_flag=True, help="Also train a text encoder on influences; takes some minutes more.")
def demo(directory: Path, architecture: Literal["gpt2", "llama"], fresh: bool, influcoder: bool) -> None:
    """Train a small model on Python's documentation and attribute what it says, start to finish."""
    from lorif_assets.demo.run import run_demo

    run_demo(
        directory, _dagster_home(), fresh=fresh, architecture=architecture, influcoder=influcoder, console=Console()
    )


@main.command()
@click.option(
    "--directory", type=click.Path(path_type=Path, file_okay=False), default=Path("scenario"), show_default=True
)
@click.option(
    "--demo",
    "demo_directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEMO_DIRECTORY,
    show_default=True,
    help="A finished demo, whose data and models are copied.",
)
def scenario(directory: Path, demo_directory: Path) -> None:
    """Change data and checkpoints under a running daemon, and show that attributions stay true."""
    from lorif_assets.demo.scenario import run_scenario

    if not run_scenario(directory, demo_directory, Console()):
        sys.exit(1)


@main.command()
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False), default=Path(CONFIG_NAME))
def init(path: Path) -> None:
    """Write a settings file in which every field is explained."""
    from lorif_assets.config.template import settings_template

    if path.exists():
        raise LorifError(f"{path} is there already; remove it first, or give another name")
    path.write_text(settings_template())
    click.echo(f"wrote {path}: name your sources and checkpoints in it, then run `lorif doctor`")


@main.command()
@config_option
def doctor(config: Path | None) -> None:
    """Show what is configured, what was found, what is missing, and what attribution will cost."""
    from lorif_assets.cli.doctor import diagnose

    _use(config)
    if not diagnose(Console()):
        sys.exit(1)


@main.command()
@config_option
def status(config: Path | None) -> None:
    """Show which partitions are up to date, missing or stale, and why."""
    from lorif_assets.cli.status import show_status

    _use(config)
    show_status(Console())


@main.command()
@config_option
def materialize(config: Path | None) -> None:
    """Bring everything active up to date, in this process; Dagster's UI shows the runs."""
    import dagster as dg

    from lorif_assets.assets.graph import ASSETS, assets_in_use
    from lorif_assets.automation.materialization import bring_up_to_date
    from lorif_assets.project import Project

    _use(config)
    console = Console()
    with dg.DagsterInstance.from_config(str(_dagster_home())) as instance:
        project = Project.open()
        in_use = assets_in_use(project.settings)
        for update in bring_up_to_date(instance, ASSETS, project, selection=in_use):
            done = f"{len(update.partitions)} partitions" if update.partitions else "up to date"
            console.print(f"{update.asset:<22} {done}")


@main.command()
@click.option("--plan", is_flag=True, help="Only show what there is to do and what it will cost.")
@config_option
def evaluate(config: Path | None, *, plan: bool) -> None:
    """Hold the scores against retraining: LoRIF beside other methods. Goes on where it was interrupted."""
    from lorif_assets.cli.evaluate import run_evaluation

    _use(config)
    run_evaluation(_dagster_home(), Console(), plan=plan)


@main.command()
@click.option("--dry-run", is_flag=True, help="List what would be deleted, and delete nothing.")
@config_option
def vacuum(dry_run: bool, config: Path | None) -> None:
    """Delete files of the lake that nothing points to any more and that are older than `vacuum.retention_hours`."""
    from lorif_assets.attribution.vacuum import delete, superseded_files
    from lorif_assets.config.settings import load_settings
    from lorif_assets.project import Project

    _use(config)
    settings = load_settings()
    lake = Project.of(settings).lake
    found = superseded_files(lake, settings.vacuum.retention_hours)
    for file in found:
        click.echo(f"{file.size:>14,}  {file.path}")
    if not dry_run:
        delete(lake, found)
    size = sum(file.size for file in found) / 1e6
    click.echo(f"{len(found)} files, {size:,.1f} MB, {'would be ' if dry_run else ''}deleted")


@main.command()
@click.option("--bytes", "budget", type=click.IntRange(min=1), help="Bytes kept per example; default: as many as now.")
@click.option("--minutes", default=20.0, show_default=True, help="After which nothing more is begun.")
@click.option("--examples", default=4_000, show_default=True, help="Size of the sample of training examples.")
@click.option("--write", is_flag=True, help="Write the recipe that came out best to the settings file.")
@config_option
def tune(config: Path | None, budget: int | None, minutes: float, examples: int, *, write: bool) -> None:
    """Try recipes on a sample of the data, and show what quality costs how many bytes."""
    from lorif_assets.cli.tune import tune_recipe

    _use(config)
    tune_recipe(Console(), budget=budget, minutes=minutes, most_examples=examples, write=write)


@main.command()
@click.option("--completion", required=True, help="What the model said.")
@click.option("--prompt", default="", help="What it was asked; carries no loss.")
@click.option("--checkpoint", help="Default: the newest attributed one.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=1), help="Rows to show on each side.")
@config_option
def attribute(prompt: str, completion: str, checkpoint: str | None, top: int, config: Path | None) -> None:
    """Show which training examples made the model say a completion."""
    from lorif_assets.attribution.ask import newest_attributed, score_completion
    from lorif_assets.pages.terminal import print_influences
    from lorif_assets.project import Project

    _use(config)
    project = Project.open()
    name = checkpoint or newest_attributed(project)
    scored = score_completion(project, name, prompt, completion, top)
    console = Console()
    console.print(
        f"[bold]{name}[/], loss {scored.summaries['loss'][0]:.2f} nats, {scored.summaries['n_examples'][0]:,} examples"
    )
    print_influences(console, project.lake, scored.scores, shown=top)


@main.command()
@click.option("--port", default=3000, show_default=True, help="Port of the web server.")
@config_option
def ui(port: int, config: Path | None) -> None:
    """Open Dagster's UI on this project."""
    _use(config)
    os.environ[_HOME_VARIABLE] = str(_dagster_home())
    program = Path(sys.executable).with_name("dagster")
    os.execv(program, [str(program), "dev", "-m", "lorif_assets.definitions", "--port", str(port)])  # noqa: S606


def _use(config: Path | None) -> None:
    if config:
        os.environ[CONFIG_VARIABLE] = str(config.absolute())


def _dagster_home() -> Path:
    """Return Dagster's home: $DAGSTER_HOME, else ./dagster_home, made where it is not there."""
    home = Path(os.environ.get(_HOME_VARIABLE) or "dagster_home").absolute()
    home.mkdir(parents=True, exist_ok=True)
    # The project's dagster.yaml says so too; a home of the user's own may have none.
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    return home


def _plain(error: LorifError) -> str:
    from rich.markup import escape

    return escape(str(error))
