"""The influence of examples on several queries together."""

from typing import Any

import numpy as np
from jaxtyping import Float


def summed_influence(
    scores: Float[np.ndarray, "Q N"], weights: Float[np.ndarray, " Q"] | None = None
) -> np.ndarray[tuple[int], np.dtype[Any]]:
    """Return each example's influence [N] on all queries together: Σ_q w_q s_qi / σ_q.

    σ_q is the standard deviation of a query's scores over the examples, so that queries count alike, whatever their losses
    and lengths; where all are equal it is left out.

    Args:
        scores: of every query and example.
        weights: of the queries, negative where examples are to speak against one; default: 1 each.
    """
    spread = scores.std(axis=1, keepdims=True)
    alike = scores / np.where(spread > 0, spread, 1)
    found: np.ndarray[tuple[int], np.dtype[Any]] = (alike if weights is None else weights[:, None] * alike).sum(axis=0)
    return found
