"""`lorif attribute`: one question, answered in the terminal."""

import click
from rich.console import Console

from lorif_assets.api.project import open_project
from lorif_assets.cli.environment import config_option
from lorif_assets.pages.terminal import print_influences


@click.command()
@click.option("--completion", required=True, help="What the model said.")
@click.option("--prompt", default="", help="What it was asked; carries no loss.")
@click.option("--checkpoint", help="Default: the newest attributed one.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=1), help="Rows to show on each side.")
@config_option
def attribute(prompt: str, completion: str, checkpoint: str | None, top: int) -> None:
    """Show which training examples made the model say a completion."""
    with open_project() as project:
        answer = project.attribute(prompt, completion, checkpoint=checkpoint, top_k=top)
    console = Console()
    console.print(f"[bold]{answer.checkpoint}[/], loss {answer.loss:.2f} nats, {answer.n_examples:,} examples")
    print_influences(console, answer.table, shown=top)
