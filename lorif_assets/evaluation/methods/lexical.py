"""Methods that do not look at the model: chance, and lexical search."""

import re
import time
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from bm25s import BM25
from jaxtyping import Float32

from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores


def random_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by chance: what any method must beat."""
    rng = np.random.default_rng(inputs.settings.evaluation.seed)
    shape = len(inputs.queries.ids), len(inputs.examples.ids)
    return {"random": MethodScores(rng.standard_normal(shape, dtype=np.float32), 0.0, 0.0, 0.0)}


def bm25_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by words that query and example share (BM25 as Lucene has it, words in lower case)."""
    started = time.monotonic()
    index = LexicalIndex(inputs.examples.texts)
    indexed = time.monotonic()
    scores = index.scores(inputs.queries.texts)
    stored = fmean(len(text.encode()) for text in inputs.examples.texts)
    return {"bm25": MethodScores(scores, stored, indexed - started, time.monotonic() - indexed)}


class LexicalIndex:
    """An index of texts by their words."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Index texts."""
        self._n_texts = len(texts)
        by_text = [words(text) for text in texts]
        self._bm25 = BM25(method="lucene", k1=1.5, b=0.75) if any(by_text) else None
        if self._bm25:
            self._bm25.index(by_text, show_progress=False)

    def scores(self, queries: Sequence[str]) -> Float32[np.ndarray, "Q N"]:
        """Return every text's score for each query; 0 where they share no word."""
        asked = [words(query) for query in queries]
        nothing = np.zeros(self._n_texts, dtype=np.float32)
        return np.stack([self._bm25.get_scores(said) if self._bm25 and said else nothing for said in asked])


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return re.findall(r"\w+", text.lower())
