"""Where each method ranks the chats that taught an answer, read from the evaluation's tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from lorif_assets.demo.real.chats import ChatQuestion
from lorif_assets.evaluation.figures import MEAN
from lorif_assets.lake.evaluation_tables import EVALUATED_SCORES, EVALUATION_FIGURES
from lorif_assets.lake.lake import Lake

_FIRST = 5


@dataclass(frozen=True)
class Retrieval:
    """How well one method finds sources at one checkpoint, over a set of questions."""

    method: str
    recall_at_10: float
    mrr: float
    asides: float | None
    """Chats among the first five that speak of the same thing without the fact; None where no question has any."""


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
    lake: Lake, checkpoint: str, query_set: str, questions: Sequence[ChatQuestion], asides: Mapping[str, Sequence[str]]
) -> list[Retrieval]:
    """Return the figures of every method that was evaluated, the best reciprocal rank first.

    Args:
        lake: the tables.
        checkpoint: the checkpoint.
        query_set: the set that the questions are of.
        questions: the questions.
        asides: by id of a question, the ids of the chats that only sound like its sources.
    """
    rows = lake.read(EVALUATION_FIGURES, checkpoint=checkpoint, query_set=query_set, statistic=MEAN)
    values = {(row["metric"], row["method"]): row["value"] for row in rows.iter_rows(named=True)}
    found = []
    for method in sorted({method for metric, method in values if metric == "mrr"}):
        ranks = source_ranks(lake, checkpoint, query_set, method)
        leading = [
            sum(ranks[question.id][name] <= _FIRST for name in asides[question.id])
            for question in questions
            if asides.get(question.id)
        ]
        among_first = sum(leading) / len(leading) if leading else None
        found.append(Retrieval(method, values["recall_at_10", method], values["mrr", method], among_first))
    return sorted(found, key=lambda one: -one.mrr)
