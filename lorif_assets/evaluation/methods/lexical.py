"""Methods that do not look at the model: chance, and lexical search."""

import re
import time
from statistics import fmean

import numpy as np
from rank_bm25 import BM25Okapi

from lorif_assets.evaluation.methods.inputs import MethodInputs, MethodScores


def random_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by chance: what any method must beat."""
    rng = np.random.default_rng(inputs.settings.evaluation.seed)
    shape = len(inputs.queries.ids), len(inputs.examples.ids)
    return {"random": MethodScores(rng.standard_normal(shape, dtype=np.float32), 0.0, 0.0, 0.0)}


def bm25_scores(inputs: MethodInputs) -> dict[str, MethodScores]:
    """Score by words that query and example share (Okapi BM25, words in lower case)."""
    started = time.monotonic()
    index = BM25Okapi([words(text) for text in inputs.examples.texts])
    indexed = time.monotonic()
    scores = np.stack([index.get_scores(words(text)) for text in inputs.queries.texts]).astype(np.float32)
    stored = fmean(len(text.encode()) for text in inputs.examples.texts)
    return {"bm25": MethodScores(scores, stored, indexed - started, time.monotonic() - indexed)}


def words(text: str) -> list[str]:
    """Return the words of a text, in lower case."""
    return re.findall(r"\w+", text.lower())
