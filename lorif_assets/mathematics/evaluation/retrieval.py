"""Retrieval of known sources: where the examples known to have taught a completion are in a ranking."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata


@dataclass(frozen=True)
class SourceRetrieval:
    """How well one ranking finds the sources of one query, each from 0 to 1."""

    recall_at_10: float
    """Share of the sources found among the first ten, of the at most ten that fit there."""
    reciprocal_rank: float
    """1 / rank of the first source."""
    roc_auc: float
    """Chance that a source is ranked above another example; 0.5 for a random ranking."""
    average_precision: float
    """Area under the curve of precision against recall (AUPRC); for a random ranking the share of sources."""


def source_retrieval(scores: Float[np.ndarray, " N"], is_source: Bool[np.ndarray, " N"]) -> SourceRetrieval:
    """Return how well scores find the sources; examples that score the same share their mean rank.

    Raises:
        ValueError: no example is a source, or all are.
    """
    n_sources, n = int(is_source.sum()), len(is_source)
    if not 0 < n_sources < n:
        raise ValueError(f"retrieval needs sources and other examples; found {n_sources} sources among {n} examples")
    ranks = rankdata(-scores)
    places = ranks[is_source]
    above = n_sources * (n - n_sources) + n_sources * (n_sources + 1) / 2 - places.sum()
    return SourceRetrieval(
        float((places <= 10).sum() / min(n_sources, 10)),
        float(1 / places.min()),
        float(above / (n_sources * (n - n_sources))),
        _average_precision(scores, is_source),
    )


def _average_precision(scores: Float[np.ndarray, " N"], is_source: Bool[np.ndarray, " N"]) -> float:
    """Return the mean over sources of the precision down to where each is; examples that score the same stand together."""
    order = np.argsort(-scores, kind="stable")
    last_of_its_score = np.append(np.diff(scores[order]) != 0, True)
    found = np.cumsum(is_source[order])[last_of_its_score]
    precision = found / (np.flatnonzero(last_of_its_score) + 1)
    return float((np.diff(found, prepend=0) * precision).sum() / found[-1])
