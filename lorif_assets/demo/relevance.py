"""How often top passages are about what the query is about, beside chance and BM25."""

from collections.abc import Collection, Sequence
from statistics import fmean

import numpy as np

from lorif_assets.evaluation.methods.lexical import LexicalIndex


def topic_precision(top_topics: Sequence[str], query_topics: Collection[str]) -> float:
    """Share of the top passages, given by their topics, that are on one of the query's topics; of all passages, that by chance.

    Raises:
        StatisticsError: there are no top passages.
    """
    return fmean(topic in query_topics for topic in top_topics)


def bm25_top(passages: Sequence[str], queries: Sequence[str], k: int) -> list[list[int]]:
    """Positions of the `k` passages that BM25 ranks highest for each query, best first.

    Words are compared in lower case; of passages that score the same, the earlier one comes first.
    """
    scores = LexicalIndex(passages).scores(queries)
    return [np.argsort(-of_query, kind="stable")[:k].tolist() for of_query in scores]
