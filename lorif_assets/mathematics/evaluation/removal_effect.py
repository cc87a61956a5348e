"""What retraining without some examples does: how much queries lose, and whether runs of consecutive ranks do so in order."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int64

from lorif_assets.mathematics.evaluation.datamodeling import subset_sums
from lorif_assets.mathematics.scores.rank_correlation import rank_correlations


def query_loss_differences(
    without: Float[np.ndarray, "S Q"], whole: Float[np.ndarray, "S Q"]
) -> Float[np.ndarray, " Q"]:
    """Return by how much each query's loss rose without the removed examples, the mean over seeds.

    Args:
        without: losses after retraining without them, by seed.
        whole: losses after retraining on everything with the same seed.
    """
    return np.asarray((without - whole).mean(axis=0))


def runs_of_ranks(n_examples: int, count: int) -> list[tuple[int, int]]:
    """Return the first and the last rank (excluded) of `count` runs of consecutive ranks, which hold every rank once.

    The runs are as long as one another, or the first ones longer by one; no more of them than there are ranks.
    """
    sizes = [len(part) for part in np.array_split(np.arange(n_examples), min(count, n_examples))]
    ends = np.cumsum(sizes).tolist()
    return [(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def sorted_subset_members(order: Int64[np.ndarray, " N"], runs: Sequence[tuple[int, int]]) -> Bool[np.ndarray, "M N"]:
    """Return the subset that is left without each run of consecutive ranks.

    Args:
        order: positions of the examples, the first rank first.
        runs: first rank and last rank (excluded) of each.
    """
    members = np.ones((len(runs), len(order)), dtype=np.bool_)
    for row, (first, end) in zip(members, runs, strict=True):
        row[order[first:end]] = False
    return members


def sorted_datamodeling_scores(
    scores: Float[np.ndarray, "Q N"], members: Bool[np.ndarray, "M N"], losses: Float[np.ndarray, "Q M"]
) -> Float[np.ndarray, " Q"]:
    """Return each query's Spearman correlation, over the subsets, of the sum of scores with the loss, its sign turned.

    As the linear datamodeling score, on subsets that differ by what a ranking says in place of chance.
    """
    return rank_correlations(subset_sums(scores, members), -losses)
