"""Where each method ranks the chats that taught an answer, read from the evaluation's tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from lorif_assets.demo.real.chats import Chat, ChatQuestion
from lorif_assets.evaluation.figures import MEAN
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES, EVALUATION_FIGURES
from lorif_assets.lake.lake import Lake

_FIRST, _RECALLED = 5, 10


@dataclass(frozen=True)
class Retrieval:
    """How well one method finds sources at one checkpoint, over a set of questions."""

    method: str
    recall_at_10: float
    mrr: float
    asides: float | None
    """Chats among the first five that speak of the same thing without the fact; None where no question has any."""
    reversals: float | None
    """Share of the chats that say the fact the other way round that are among the first ten; None where there are none."""


def source_ranks(lake: Lake, checkpoint: str, query_set: str, method: str) -> Mapping[str, Mapping[str, int]]:
    """Return by question and training chat the chat's rank, from 1; chats that score the same share the best one."""
    rows = lake.read(
        EVALUATED_SCORES, ["query_id", "example_id", "score"], checkpoint=checkpoint, query_set=query_set, method=method
    )
    rank = pl.col("score").rank("min", descending=True).over("query_id").cast(pl.Int64)
    ranked = rows.with_columns(rank.alias("rank"))
    return {
        str(query): dict(group.select("example_id", "rank").iter_rows())
        for (query,), group in ranked.group_by("query_id", maintain_order=True)
    }


def retrievals(
    lake: Lake, checkpoint: str, query_set: str, questions: Sequence[ChatQuestion], chats: Sequence[Chat]
) -> list[Retrieval]:
    """Return the figures of every method that was evaluated, the best reciprocal rank first.

    Args:
        lake: the tables.
        checkpoint: the checkpoint.
        query_set: the set that the questions are of.
        questions: the questions.
        chats: the training chats.
    """
    rows = lake.read(EVALUATION_FIGURES, checkpoint=checkpoint, query_set=query_set, statistic=MEAN)
    values = {(row["metric"], row["method"]): row["value"] for row in rows.iter_rows(named=True)}
    found = []
    for method in sorted({method for metric, method in values if metric == "mrr"}):
        ranks = source_ranks(lake, checkpoint, query_set, method)
        asides, reversals = (
            _mean_found(ranks, related_chats(questions, chats, kind), first)
            for kind, first in (("aside", _FIRST), ("reversal", _RECALLED))
        )
        found.append(Retrieval(method, values["recall_at_10", method], values["mrr", method], asides, reversals))
    return sorted(found, key=lambda one: -one.mrr)


def related_chats(questions: Sequence[ChatQuestion], chats: Sequence[Chat], kind: str) -> Mapping[str, Sequence[str]]:
    """Return by question the chats of a kind that are about the thing that its sources are about."""
    named = [chat.id for chat in chats if chat.kind == kind]
    subjects = {question.id: {_subject(source) for source in question.sources} for question in questions}
    return {question: [name for name in named if _subject(name) in about] for question, about in subjects.items()}


def _subject(chat: str) -> str:
    return chat.partition("/")[0]


def _mean_found(
    ranks: Mapping[str, Mapping[str, int]], related: Mapping[str, Sequence[str]], first: int
) -> float | None:
    """Return how many related chats are among the first ones, as a mean over the questions that have any."""
    counts = [sum(ranks[question][name] <= first for name in names) for question, names in related.items() if names]
    return sum(counts) / len(counts) if counts else None
