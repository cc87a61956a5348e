"""One ranking from several: reciprocal rank fusion."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

_DAMPING = 60
"""Ranks from which a place counts half as much as the first: the value of Cormack, Clarke and Buettcher (SIGIR 2009)."""


def reciprocal_rank_fusion(rankings: Sequence[Float[np.ndarray, "Q N"]]) -> Float[np.ndarray, "Q N"]:
    """Return a score for each query and example that no ranking alone decides: Σ 1 / (60 + rank), FP64.

    Examples that a ranking cannot tell apart share the mean of their ranks there, from 1 for the highest score.

    Args:
        rankings: scores by each way to rank; only their order counts.
    """
    fused: Float[np.ndarray, "Q N"] = sum(
        (1.0 / (_DAMPING + rankdata(-np.asarray(scores, dtype=np.float64), axis=1)) for scores in rankings),
        start=np.zeros(np.shape(rankings[0])),
    )
    return fused
