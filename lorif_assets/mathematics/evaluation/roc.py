"""The mean ROC curve of several queries: the share of known sources found, against the share of false alarms."""

import numpy as np
from jaxtyping import Bool, Float, Float64

FALSE_POSITIVE_RATES: Float64[np.ndarray, " P"] = np.geomspace(1e-6, 1, 301)
"""Where curves are evaluated: close together at the top of the ranking, which people read."""


def mean_roc_curve(
    scores: Float[np.ndarray, "Q N"], relevant: Bool[np.ndarray, "Q N"]
) -> Float64[np.ndarray, " P"] | None:
    """Return the mean over queries of the true positive rate at each of `FALSE_POSITIVE_RATES`.

    Examples of equal score are taken together, which draws a straight line between the rates before and after them, so
    that the area below is the chance that a relevant example outranks another, ties counting half.

    Args:
        scores: of every query and example.
        relevant: which examples each query should find; a query with none, or all, has no curve and is left out.

    Returns:
        The curve, or None if no query has one.
    """
    curves = [_roc_curve(row, mask) for row, mask in zip(scores, relevant, strict=True) if 0 < mask.sum() < mask.size]
    return np.mean(curves, axis=0) if curves else None


def _roc_curve(scores: Float[np.ndarray, " N"], relevant: Bool[np.ndarray, " N"]) -> Float64[np.ndarray, " P"]:
    order = np.argsort(-scores, kind="stable")
    last_of_its_score = np.append(np.diff(scores[order]) != 0, True)
    found = np.cumsum(relevant[order])[last_of_its_score]
    alarms = np.cumsum(~relevant[order])[last_of_its_score]
    rates = np.append(0, alarms / alarms[-1]), np.append(0, found / found[-1])
    # Where the curve is vertical, `interp` takes its upper end.
    curve: Float64[np.ndarray, " P"] = np.interp(FALSE_POSITIVE_RATES, *rates)
    return curve
