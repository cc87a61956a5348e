"""`lorif attribute`: one question, answered in the terminal."""

import click
from rich.console import Console

from lorif_assets.attribution.ask import newest_attributed, score_completion
from lorif_assets.cli.environment import config_option
from lorif_assets.pages.terminal import print_influences
from lorif_assets.project import Project


@click.command()
@click.option("--completion", required=True, help="What the model said.")
@click.option("--prompt", default="", help="What it was asked; carries no loss.")
@click.option("--checkpoint", help="Default: the newest attributed one.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=1), help="Rows to show on each side.")
@config_option
def attribute(prompt: str, completion: str, checkpoint: str | None, top: int) -> None:
    """Show which training examples made the model say a completion."""
    project = Project.open()
    name = checkpoint or newest_attributed(project)
    scored = score_completion(project, name, prompt, completion, top)
    console = Console()
    console.print(
        f"[bold]{name}[/], loss {scored.summaries['loss'][0]:.2f} nats, {scored.summaries['n_examples'][0]:,} examples"
    )
    print_influences(console, project.lake, scored.scores, shown=top)
