"""The linear datamodeling score: do sums of scores over subsets predict the losses of models retrained on them?

LDS of a query (Park et al. 2023, arXiv 2303.14186; docs/method.md: evaluation): the Spearman correlation, over random subsets S
of the training data, between sum_{i in S} score(q, i) and -loss_S(q).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int64

from lorif_assets.mathematics.evaluation.intervals import Comparison, compared
from lorif_assets.mathematics.scores.rank_correlation import rank_correlations


@dataclass(frozen=True)
class Resamples:
    """Bootstrap draws, shared by all methods so that their differences are paired: positions of subsets and queries."""

    subsets: Int64[np.ndarray, "B M"]
    queries: Int64[np.ndarray, "B Q"]

    @classmethod
    def draw(cls, n_subsets: int, n_queries: int, draws: int, seed: int) -> "Resamples":
        """Draw with replacement."""
        rng = np.random.default_rng(seed)
        return cls(rng.integers(n_subsets, size=(draws, n_subsets)), rng.integers(n_queries, size=(draws, n_queries)))


def subset_sums(scores: Float[np.ndarray, "Q N"], members: Bool[np.ndarray, "M N"]) -> Float[np.ndarray, "Q M"]:
    """Return the sum of each query's scores over the members of each subset: what the scores predict for it."""
    return scores.astype(np.float64) @ members.T.astype(np.float64)


def bootstrap_means(
    predictions: Float[np.ndarray, "Q M"], losses: Float[np.ndarray, "Q M"], resamples: Resamples
) -> Float[np.ndarray, " B"]:
    """Return, per draw, the mean over the drawn queries of the LDS on the drawn subsets."""
    return np.array(
        [
            rank_correlations(predictions[:, subsets], -losses[:, subsets])[queries].mean()
            for subsets, queries in zip(resamples.subsets, resamples.queries, strict=True)
        ]
    )


def linear_datamodeling_scores(
    scores: Mapping[str, Float[np.ndarray, "Q N"]],
    members: Bool[np.ndarray, "M N"],
    losses: Float[np.ndarray, "Q M"],
    reference: str,
    draws: int,
    seed: int = 0,
) -> Comparison:
    """Compare the scores of several methods with retraining.

    Args:
        scores: by method, of every query and training example.
        members: which examples each subset has.
        losses: of each query under the model retrained on each subset, averaged over seeds.
        reference: the method that the others are compared with.
        draws: bootstrap draws.
        seed: of the bootstrap.
    """
    resamples = Resamples.draw(members.shape[0], losses.shape[0], draws, seed)
    predictions = {method: subset_sums(matrix, members) for method, matrix in scores.items()}
    per_query = {method: rank_correlations(sums, -losses) for method, sums in predictions.items()}
    means = {method: bootstrap_means(sums, losses, resamples) for method, sums in predictions.items()}
    return compared(per_query, means, reference)


@dataclass(frozen=True)
class Reliability:
    """How far the ground truth agrees with itself.

    `one_seed`: mean Spearman correlation over subsets between the losses of two seeds. `all_seeds`: the correlation to
    expect between two averages over as many seeds as there are (Spearman-Brown). An LDS of sqrt(all_seeds) is about what
    the exact effect of the data would reach: the rest is noise of training.
    """

    one_seed: float
    all_seeds: float

    @property
    def ceiling(self) -> float:
        """The LDS that noise leaves within reach."""
        return float(np.sqrt(max(self.all_seeds, 0.0)))


def reliability(losses: Sequence[Float[np.ndarray, "Q M"]]) -> Reliability | None:
    """Return the agreement of the ground truth between seeds, or None if there is only one.

    Args:
        losses: by seed, of each query under the model retrained on each subset.
    """
    k = len(losses)
    if k < 2:
        return None
    one = float(np.mean([rank_correlations(a, b).mean() for a, b in combinations(losses, 2)]))
    return Reliability(one, k * one / (1 + (k - 1) * one) if one > -1 / (k - 1) else 0.0)
