"""`lorif attribute`: one question, answered in the terminal."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TextIO

import click
import polars as pl
from rich.text import Text

from lorif_assets.api.answer import Attribution
from lorif_assets.api.project import open_project
from lorif_assets.attribution.scores.stored_rankings import RANKINGS, WHEN_WHICH, Ranking
from lorif_assets.cli.environment import config_option
from lorif_assets.data.query_files import read_queries
from lorif_assets.data.rows.json_values import parsed_json
from lorif_assets.errors import SourceError
from lorif_assets.pages.terminal import print_influences, print_tokens
from lorif_assets.pages.terminal_console import TerminalConsole


@click.command()
@click.option("--completion", help="What the model said.")
@click.option("--prompt", default="", help="What it was asked; carries no loss.")
@click.option("--span", help="A part of the completion or answer, by its text: only its tokens are asked about.")
@click.option(
    "--against",
    help="Another completion, or answer at the end of the chat: asked about is the difference of the two losses.",
)
@click.option(
    "--also",
    type=(str, str, float),
    multiple=True,
    metavar="PROMPT COMPLETION WEIGHT",
    help="Another prompt, its completion and a weight beside the first's 1; repeatable: what is asked about is the weighted "
    "sum of the losses. Below zero: what speaks against that completion. With --assistant, what another user asked and the "
    "answer, after the same --system.",
)
@click.option("--assistant", help="In place of --completion: what it said in a chat, through its chat template.")
@click.option("--user", help="What it was asked in the chat.")
@click.option("--system", help="What it was instructed in the chat.")
@click.option(
    "--messages",
    type=click.File(encoding="utf-8"),
    help="In place of all these: a JSON file of a chat, a list of {role, content} or an object of messages and tools. The "
    "loss is on the assistant's messages, but those of weight 0.",
)
@click.option(
    "--queries",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="In place of all these: a file of questions (Parquet, JSONL, JSON or CSV), as query sets are.",
)
@click.option("--checkpoint", help="Default: the newest attributed one.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=1), help="Rows to show on each side.")
@click.option(
    "--tokens",
    is_flag=True,
    help="Colour each token of the shown examples, and of the completion, by its share of the score from whole gradients.",
)
@click.option(
    "--ranking",
    default="plain",
    show_default=True,
    type=click.Choice(RANKINGS),
    help="; ".join(f"{name}: {words}" for name, words in WHEN_WHICH.items()) + ".",
)
@click.option("--json", "form", flag_value="json", help="Print each answer as a JSON object on a line of its own.")
@click.option("--csv", "form", flag_value="csv", help="Print a table of all answers as CSV.")
@config_option
def attribute(
    completion: str | None,
    prompt: str,
    span: str | None,
    against: str | None,
    also: tuple[tuple[str, str, float], ...],
    assistant: str | None,
    user: str | None,
    system: str | None,
    messages: TextIO | None,
    queries: Path | None,
    checkpoint: str | None,
    top: int,
    tokens: bool,
    ranking: Ranking,
    form: Literal["json", "csv"] | None,
) -> None:
    """Show which training examples made the model say a completion."""
    if sum(said is not None for said in (completion, assistant, messages, queries)) != 1:
        raise click.UsageError(
            "Name what was said: one of --completion, --assistant and --messages, or a file of --queries."
        )
    chat = _chat(completion, prompt, assistant, user, system, messages)
    if tokens and ranking != "plain":
        raise click.UsageError("--tokens shares out scores: take it without --ranking, or with --ranking plain.")
    if also and (span, against) != (None, None):
        raise click.UsageError(
            "--also asks about several completions, --span and --against about one: take one of them."
        )
    several = _several(prompt, completion, assistant, user, system, also)
    line = several or _line(prompt, completion, chat, span, against)
    pairs = top if tokens else 0
    options: dict[str, Any] = {"checkpoint": checkpoint, "top_k": top, "tokens": pairs}
    with open_project() as project:
        columns = project.query_columns
        # Before the checkpoint: a file that cannot be read is said at once.
        rows = None if queries is None else read_queries(queries, columns)
        with TerminalConsole(stderr=True).status("loading the checkpoint"):
            project.load(checkpoint)
        if rows is not None:
            answers = project.attribute_queries(rows, columns=columns, **options)
        elif line is not None:
            answers = {"query": project.attribute_query(line, **options)}
        elif chat is not None:
            answers = {"query": project.attribute_chat(chat, **options)}
        else:
            answers = {"query": project.attribute(prompt, completion or "", **options)}
    if form == "json":
        for query_id, answer in answers.items():
            click.echo(json.dumps({"query_id": query_id, **answer.as_json(top, ranking)}, ensure_ascii=False))
    elif form == "csv":
        _print_csv(answers, top, ranking)
    else:
        _print(answers, top, ranking, tokens=tokens)


def _named(query_id: str) -> pl.Expr:
    return pl.lit(query_id).alias("query_id")


def _print_csv(answers: Mapping[str, Attribution], top: int, ranking: Ranking) -> None:
    tables = [answer.rows(top, ranking).insert_column(0, _named(query_id)) for query_id, answer in answers.items()]
    click.echo(pl.concat(tables).write_csv(), nl=False)
    # The table has no place for them.
    for query_id, answer in answers.items():
        if answer.notice:
            click.echo(f"{query_id}: {answer.notice}.", err=True)


def _print(answers: Mapping[str, Attribution], top: int, ranking: Ranking, *, tokens: bool) -> None:
    console = TerminalConsole()
    for query_id, answer in answers.items():
        if len(answers) > 1:
            console.print(Text.assemble(f"\n{query_id}  {answer.prompt}", (answer.completion, "bold reverse")))
        console.print(f"[bold]{answer.checkpoint}[/], {answer.value}, {answer.n_examples:,} examples")
        if answer.notice:
            console.print(f"{answer.notice}.", style="yellow", markup=False)
        console.print(f"{ranking}: {WHEN_WHICH[ranking]}")
        table = answer.table if ranking == "plain" else answer.relative
        if tokens:
            print_tokens(console, table, answer.tokens, top, answer.objective)
        else:
            print_influences(console, table, top, ranking, answer.objective)


def _line(
    prompt: str,
    completion: str | None,
    chat: object,
    span: str | None,
    against: str | None,
) -> Mapping[str, Any] | None:
    """What is asked about as a line of a query file has it; None where it is the loss of one completion or chat."""
    asked = {name: text for name, text in (("span", span), ("against", against)) if text is not None}
    if not asked:
        return None
    if chat is not None:
        return {**(chat if isinstance(chat, dict) else {"messages": chat}), **asked}
    if completion is None:
        raise click.UsageError("--span and --against go with a completion or a chat.")
    return {**({"prompt": prompt, "completion": completion} if prompt else {"text": completion}), **asked}


def _several(
    prompt: str,
    completion: str | None,
    assistant: str | None,
    user: str | None,
    system: str | None,
    also: tuple[tuple[str, str, float], ...],
) -> Mapping[str, Any] | None:
    """Several completions, or answers in chats of the same system message, as a line of a query file has them."""
    if not also:
        return None
    if assistant is not None:
        chats = [(user, assistant, 1.0), *((asked or None, said, weight) for asked, said, weight in also)]
        return {"weighted": [{"messages": _turns(system, asked, said), "weight": by} for asked, said, by in chats]}
    if completion is None:
        raise click.UsageError(
            "--also goes with --completion or --assistant; sets of other chats are in files of --queries."
        )
    members = [(prompt, completion, 1.0), *also]
    return {"weighted": [dict(zip(("prompt", "completion", "weight"), one, strict=True)) for one in members]}


def _turns(system: str | None, user: str | None, assistant: str | None) -> list[dict[str, str]]:
    turns = {"system": system, "user": user, "assistant": assistant}
    return [{"role": role, "content": content} for role, content in turns.items() if content is not None]


def _chat(
    completion: str | None,
    prompt: str,
    assistant: str | None,
    user: str | None,
    system: str | None,
    messages: TextIO | None,
) -> object:
    """The chat that is asked about; None where it is a completion."""
    if prompt and completion is None:
        raise click.UsageError("--prompt goes with --completion; in a chat, the question is --user.")
    if assistant is None and (user is not None or system is not None):
        raise click.UsageError("--user and --system go with --assistant.")
    if messages is not None:
        return _parsed(messages)
    return _turns(system, user, assistant) or None


def _parsed(file: TextIO) -> object:
    try:
        # A file of nothing but null is no chat either.
        return parsed_json(file.read()) or []
    except ValueError as error:
        raise SourceError(f"{file.name} is no JSON: {error}. Give one chat, a list of {{role, content}}.") from error
