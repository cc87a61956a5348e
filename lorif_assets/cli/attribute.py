"""`lorif attribute`: one question, answered in the terminal."""

from typing import TextIO

import click
from rich.console import Console

from lorif_assets.attribution.ask import newest_attributed, score_completion
from lorif_assets.cli.environment import config_option
from lorif_assets.data.questions import (
    Question,
    completion_question,
    conversation_file_question,
    conversation_question,
)
from lorif_assets.pages.terminal import print_influences
from lorif_assets.project import Project


@click.command()
@click.option("--completion", help="What the model said.")
@click.option("--prompt", default="", help="What it was asked; carries no loss.")
@click.option("--assistant", help="In place of --completion: what it said in a chat, through its chat template.")
@click.option("--user", help="What it was asked in the chat.")
@click.option("--system", help="What it was instructed in the chat.")
@click.option(
    "--messages",
    type=click.File(encoding="utf-8"),
    help="In place of all these: a JSON file of a chat, a list of {role, content} or an object of messages and tools. The "
    "loss is on the assistant's messages, but those of weight 0.",
)
@click.option("--checkpoint", help="Default: the newest attributed one.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=1), help="Rows to show on each side.")
@config_option
def attribute(
    completion: str | None,
    prompt: str,
    assistant: str | None,
    user: str | None,
    system: str | None,
    messages: TextIO | None,
    checkpoint: str | None,
    top: int,
) -> None:
    """Show which training examples made the model say a completion."""
    question = _question(completion, prompt, assistant, user, system, messages)
    project = Project.open()
    name = checkpoint or newest_attributed(project)
    scored = score_completion(project, name, question, top)
    console = Console()
    console.print(
        f"[bold]{name}[/], loss {scored.summaries['loss'][0]:.2f} nats, {scored.summaries['n_examples'][0]:,} examples"
    )
    print_influences(console, project.lake, scored.scores, shown=top)


def _question(
    completion: str | None,
    prompt: str,
    assistant: str | None,
    user: str | None,
    system: str | None,
    messages: TextIO | None,
) -> Question:
    if sum(said is not None for said in (completion, assistant, messages)) != 1:
        raise click.UsageError("Name what was said: one of --completion, --assistant and --messages.")
    if prompt and completion is None:
        raise click.UsageError("--prompt goes with --completion; in a chat, the question is --user.")
    if assistant is None and (user is not None or system is not None):
        raise click.UsageError("--user and --system go with --assistant.")
    if messages is not None:
        return conversation_file_question(messages.read(), messages.name)
    if completion is not None:
        return completion_question(prompt, completion)
    turns = {"system": system, "user": user, "assistant": assistant}
    said = [{"role": role, "content": content} for role, content in turns.items() if content is not None]
    return conversation_question(said, "--assistant")
