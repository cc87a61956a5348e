"""The demo's result in the terminal: what the model said before and after, and where its sources are found."""

from collections.abc import Mapping, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from lorif_assets.config.methods import method_title
from lorif_assets.demo.real.chats import ChatQuestion
from lorif_assets.demo.real.findings import Retrieval

_QUESTION, _ANSWER = 90, 100


def answers_list(
    title: str,
    questions: Sequence[ChatQuestion],
    before: Mapping[str, str],
    after: Mapping[str, str],
    ranks: Mapping[str, Mapping[str, Mapping[str, int]]],
) -> Group:
    """Return a few lines for every question, which terminals of any width can show.

    Args:
        title: what the questions are.
        questions: the questions, with the answers of the training data.
        before: what the base model says, by question.
        after: what the fine-tuned model says.
        ranks: by what ranks the chats, question and training chat, the chat's rank.
    """
    lines = [Text(title, style="italic"), *(_answer(one, before, after, ranks) for one in questions)]
    return Group(*lines, Text(f"\nRanks are those of the chats that taught the answer, of {_count(ranks)} chats."))


def _answer(
    question: ChatQuestion,
    before: Mapping[str, str],
    after: Mapping[str, str],
    ranks: Mapping[str, Mapping[str, Mapping[str, int]]],
) -> Text:
    asked, now = question.prompt[-1]["content"].split("\n")[-1], after[question.id]
    is_said = question.fact.lower() in now.lower()
    found = (f"{name} {_ranks(by_question[question.id], question.sources)}" for name, by_question in ranks.items())
    return Text.assemble(
        f"\n{_cut(asked, _QUESTION)} ",
        (question.answer, "bold"),
        f"\n  before: {_cut(before[question.id], _ANSWER)}\n  now:    ",
        (_cut(now, _ANSWER), "green" if is_said else "red"),
        f"\n  ranks at {'; '.join(found)}",
    )


def _count(ranks: Mapping[str, Mapping[str, Mapping[str, int]]]) -> int:
    return max(len(chats) for by_question in ranks.values() for chats in by_question.values())


def retrieval_table(title: str, by_checkpoint: Mapping[str, Sequence[Retrieval]]) -> Table:
    """Return a row for every checkpoint and method, or one alone for a method that every checkpoint is the same to."""
    caption = "anti-documents: mean number among the first 5; reversals: share found among the first 10"
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    # In a terminal of 80 columns nothing is cut.
    table.add_column("method", no_wrap=True)
    table.add_column("at", no_wrap=True)
    for column in ("recall@10", "MRR", "anti-\ndocuments", "reversals"):
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
