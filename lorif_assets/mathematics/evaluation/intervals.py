"""Means over queries with 95 % intervals by the bootstrap, and paired differences between methods."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with a 95 % interval by the bootstrap."""

    value: float
    low: float
    high: float


def estimate(value: float, draws: Float[np.ndarray, " B"]) -> Estimate:
    """Return the value with the central 95 % of its bootstrap distribution."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(value, float(low), float(high))


@dataclass(frozen=True)
class Comparison:
    """Several methods on the same queries.

    `per_query` [Q] and `mean` by method; `differences` by every other method: the reference's mean minus the method's,
    with a paired interval.
    """

    per_query: Mapping[str, Float[np.ndarray, " Q"]]
    mean: Mapping[str, Estimate]
    reference: str
    differences: Mapping[str, Estimate]


def compared(
    per_query: Mapping[str, Float[np.ndarray, " Q"]], draws: Mapping[str, Float[np.ndarray, " B"]], reference: str
) -> Comparison:
    """Return the means with their intervals.

    Args:
        per_query: each method's figure on each query.
        draws: by method, the mean in each bootstrap draw; draw b of one method goes with draw b of another.
        reference: the method that the others are compared with.
    """
    return Comparison(
        per_query=per_query,
        mean={method: estimate(float(values.mean()), draws[method]) for method, values in per_query.items()},
        reference=reference,
        differences={
            method: estimate(float(per_query[reference].mean() - values.mean()), draws[reference] - draws[method])
            for method, values in per_query.items()
            if method != reference
        },
    )


def compared_over_queries(
    per_query: Mapping[str, Float[np.ndarray, " Q"]], reference: str, draws: int, seed: int = 0
) -> Comparison:
    """Return the means of figures that are measured query by query, resampling the queries."""
    n_queries = len(per_query[reference])
    chosen = np.random.default_rng(seed).integers(n_queries, size=(draws, n_queries))
    return compared(per_query, {method: values[chosen].mean(axis=1) for method, values in per_query.items()}, reference)
