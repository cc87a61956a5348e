"""Spearman's correlation of many pairs of rows at once."""

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata


def rank_correlations(left: Float[np.ndarray, "Q M"], right: Float[np.ndarray, "Q M"]) -> Float[np.ndarray, " Q"]:
    """Return Spearman's correlation of each row of the two, with mean ranks for ties; 0 for a row without variation."""
    a, b = (_centred(rankdata(values, axis=1)) for values in (left, right))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.einsum("qm,qm->q", a, b)
    correlations: Float[np.ndarray, " Q"] = np.zeros_like(products)
    np.divide(products, norms, out=correlations, where=norms > 0)
    return correlations


def _centred(values: Float[np.ndarray, "Q M"]) -> Float[np.ndarray, "Q M"]:
    return np.asarray(values - values.mean(axis=1, keepdims=True))
