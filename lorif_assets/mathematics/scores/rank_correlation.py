"""Spearman's correlation of many pairs of rows at once."""

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from lorif_assets.mathematics.evaluation.intervals import Floats


def rank_correlations(left: Float[Floats, "Q M"], right: Float[Floats, "Q M"]) -> Float[Floats, " Q"]:
    """Return Spearman's correlation of each row of the two, with mean ranks for ties; 0 for a row without variation."""
    a, b = (_centred(rankdata(values, axis=1)) for values in (left, right))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = np.einsum("qm,qm->q", a, b)
    return np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)


def _centred(values: Floats) -> Floats:
    return np.asarray(values - values.mean(axis=1, keepdims=True))
