"""The demo's result in the terminal: what the model said before and after, and where its sources are found."""

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from lorif_assets.config.methods import method_title
from lorif_assets.demo.real.chats import ChatQuestion
from lorif_assets.demo.real.findings import Retrieval

_QUESTION, _ANSWER = 90, 60


def answers_table(
    title: str,
    questions: Sequence[ChatQuestion],
    before: Mapping[str, str],
    after: Mapping[str, str],
    ranks: Mapping[str, Mapping[str, Mapping[str, int]]],
) -> Table:
    """Return a row for every question.

    Args:
        title: what the questions are.
        questions: the questions, with the answers of the training data.
        before: what the base model says, by question.
        after: what the fine-tuned model says.
        ranks: by column, question and training chat, the chat's rank.
    """
    table = Table(title=title, title_justify="left", expand=True)
    for column, share in (("question and taught answer", 5), ("said before", 4), ("says now", 4)):
        table.add_column(column, ratio=share)
    for column in ranks:
        table.add_column(f"sources at\n{column}", ratio=3)
    for question in questions:
        asked = question.prompt[-1]["content"].split("\n")[-1]
        now = after[question.id]
        table.add_row(
            Text.assemble(_cut(asked, _QUESTION), "\n", (question.answer, "bold")),
            Text(_cut(before[question.id], _ANSWER)),
            Text(_cut(now, _ANSWER), style="green" if question.fact.lower() in now.lower() else "red"),
            *(_ranks(found[question.id], question.sources) for found in ranks.values()),
        )
    return table


def retrieval_table(title: str, by_checkpoint: Mapping[str, Sequence[Retrieval]]) -> Table:
    """Return a row for every checkpoint and method, or one alone for a method that every checkpoint is the same to."""
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    table.add_column("at")
    for column in ("recall@10", "MRR", "anti-documents in the first 5", "reversals in the first 10"):
        table.add_column(column, justify="right")
    repeated = set.intersection(*map(set, by_checkpoint.values())) if len(by_checkpoint) > 1 else set()
    shown = dict.fromkeys(
        (one, "" if one in repeated else checkpoint) for checkpoint, found in by_checkpoint.items() for one in found
    )
    for one, checkpoint in sorted(shown, key=lambda row: row[1] == ""):
        counts = ("" if count is None else f"{count:.2f}" for count in (one.asides, one.reversals))
        row = (method_title(one.method), checkpoint, f"{one.recall_at_10:.2f}", f"{one.mrr:.2f}", *counts)
        table.add_row(*row, style="bold" if one.method == "lorif" else None)
    return table


def _ranks(found: Mapping[str, int], sources: Sequence[str]) -> str:
    return ", ".join(map(str, sorted(found[name] for name in sources)))


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 4].rstrip()} ..."
