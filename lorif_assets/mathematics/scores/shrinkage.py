"""Posterior means of influence: what is to be expected of a score once the noise of storing it is known.

A stored score is s = t + e: an influence t, few of which are large, and what projection, rank and codes add, which has
light tails. A sum over thousands of examples hears the noise of all of them; the expectation of t given s moves small scores
towards zero far more than large ones (docs/method.md: shrunk scores for sums).
"""

import numpy as np
from jaxtyping import Float
from scipy.special import erfcx, expit, log_ndtr

MOST_NOISE = 0.95
"""The largest noise share that is believed: beyond it scores would all be called zero, and a sum says nothing."""


def noise_share(stored: Float[np.ndarray, "Q n"], exact: Float[np.ndarray, "Q n"]) -> float:
    """Return the share of the stored scores' mean square that is noise, from 0 to `MOST_NOISE`.

    In s = a t + e with e independent of t, it is 1 - cos²(s, t); the cosine is the mean over the queries. a, which is not 1
    where codes lose a part of every gradient, does not matter. It is 0 where no query has any score that is not zero, on either
    side: there is nothing to shrink.

    Args:
        stored: scores of sampled pairs; n examples.
        exact: scores of the same pairs without projection or compression.
    """
    s, t = np.asarray(stored, dtype=np.float64), np.asarray(exact, dtype=np.float64)
    norms = np.linalg.norm(s, axis=1) * np.linalg.norm(t, axis=1)
    if not (norms > 0).any():
        return 0.0
    cosine = float((np.einsum("qn,qn->q", s, t)[norms > 0] / norms[norms > 0]).mean())
    return min(1 - max(cosine, 0.0) ** 2, MOST_NOISE)


def root_mean_square(scores: Float[np.ndarray, "Q N"]) -> Float[np.ndarray, "Q 1"]:
    """Return the root of each query's mean square score; scores that are not finite are left out."""
    squares = np.where(np.isfinite(scores), np.asarray(scores, dtype=np.float64), np.nan) ** 2
    counted = np.isfinite(squares)
    total = np.where(counted, squares, 0.0).sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(total / np.maximum(counted.sum(axis=1, keepdims=True), 1)))


def shrunk(
    scores: Float[np.ndarray, "Q N"], share: float, size: Float[np.ndarray, "Q 1"] | None = None
) -> Float[np.ndarray, "Q N"]:
    """Return the posterior mean of each score, FP64: a query's influences follow Laplace's law around 0, the noise Gauss's.

    Both laws' variances add up to the query's mean square. A ranking stays as it is, and so do signs; without noise the
    scores come back.

    Args:
        scores: of Q queries and N examples.
        share: of the mean square that is noise, from 0 to 1, exclusive.
        size: the root of each query's mean square over all examples; by default of those given.
    """
    values = np.asarray(scores, dtype=np.float64)
    of_all = root_mean_square(values) if size is None else np.asarray(size, dtype=np.float64)
    if share == 0:
        return values
    unit = np.where(of_all > 0, of_all, 1.0)
    return laplace_posterior_mean(values / unit, float(np.sqrt(share)), float(np.sqrt((1 - share) / 2))) * unit


def laplace_posterior_mean(observed: Float[np.ndarray, "..."], noise: float, scale: float) -> Float[np.ndarray, "..."]:
    """Return E[t | t + e = observed] for t of density exp(-|t| / scale) / 2 scale and normal e of standard deviation `noise`.

    On either side of 0 the posterior is a normal law of the same deviation, its mean moved by noise² / scale towards 0 and
    cut off at 0; the mean of both is weighted by their masses.
    """
    # An odd function: only its positive half is computed, where nothing cancels.
    s, shift = np.abs(observed), noise**2 / scale
    near, far = (s - shift) / noise, (s + shift) / noise
    # log of the mass beyond 0 over that on the side of s.
    odds = 2 * s / scale + log_ndtr(-far) - log_ndtr(near)
    across = expit(odds)
    own = noise * (near + _inverse_mills(near))
    other = noise * (far - _inverse_mills(-far))
    # Near 0 both halves cancel: what rounding leaves of them may lie beyond 0.
    return np.asarray(np.sign(observed) * ((1 - across) * own + across * other).clip(0.0, s))


def _inverse_mills(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Return the standard normal density over its distribution function, φ(x) / Φ(x), without underflow."""
    # erfcx overflows to infinity far to the right, where the quotient is 0.
    with np.errstate(over="ignore"):
        return np.asarray(np.sqrt(2 / np.pi) / erfcx(-x / np.sqrt(2)))
