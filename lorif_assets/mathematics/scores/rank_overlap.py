"""How alike two rankings are: rank-biased overlap, and the share of their leading items.

W. Webber, A. Moffat, J. Zobel: "A Similarity Measure for Indefinite Rankings", ACM TOIS 28(4), 2010.
"""

from collections.abc import Hashable, Sequence

import numpy as np

PERSISTENCE = 0.9
"""p: with 0.9 the first ten ranks hold 86 % of the weight."""


def rank_biased_overlap(
    first: Sequence[Hashable], second: Sequence[Hashable], persistence: float = PERSISTENCE
) -> float:
    """Return the extrapolated rank-biased overlap of two rankings of which only the beginnings are known.

    Let X_d be how many items the first d ranks of both have in common, and s <= l the lengths. The agreement at depth d
    is A_d = (X_d + X_s max(d - s, 0) / s) / d: past the end of the shorter ranking, its unseen items count as shared as
    often as its seen ones were. Then (the paper's equation 32, rearranged)

        RBO = (1 - p) sum_{d=1}^{l} p^(d-1) A_d  +  p^l A_l,

    the mean of the agreement over all depths with geometrically falling weights, A_l standing for what lies deeper.

    Laws: it lies in [0, 1]; it is symmetric; it is 1 for two identical rankings and where one is the beginning of the
    other, 0 for two without a common item; agreement at higher ranks counts for more than as much of it at lower ones.

    Args:
        first: items, the leading one first, none of them twice.
        second: the items of the other ranking, likewise.
        persistence: p in (0, 1); the smaller, the more the top counts.

    Raises:
        ValueError: a ranking is empty or repeats an item, or p is out of range.
    """
    if not 0 < persistence < 1:
        raise ValueError(f"the persistence p lies between 0 and 1, found {persistence}")
    for ranking in (first, second):
        if not ranking or len(set(ranking)) < len(ranking):
            raise ValueError(
                f"a ranking has items, each of them once; found {len(ranking)}, {len(set(ranking))} of them different"
            )
    shorter, longer = sorted((len(first), len(second)))
    rank_in_second = {item: rank for rank, item in enumerate(second, start=1)}
    shared_from = [max(rank, rank_in_second[item]) for rank, item in enumerate(first, 1) if item in rank_in_second]
    depths = np.arange(1, longer + 1)
    shared = np.bincount(np.array(shared_from, dtype=np.int64), minlength=longer + 1)[1:].cumsum()
    unseen = shared[shorter - 1] / shorter * np.maximum(depths - shorter, 0)
    agreement = (shared + unseen) / depths
    overlap = (1 - persistence) * (persistence ** (depths - 1.0) @ agreement) + persistence**longer * agreement[-1]
    # Rounding can make the sum of the weights exceed 1.
    return min(float(overlap), 1.0)


def top_overlap(first: Sequence[Hashable], second: Sequence[Hashable], depth: int) -> float:
    """Return the share (0 to 1) of the `depth` leading items that two rankings have in common.

    If both rankings are shorter, it is the share of the longer one.
    """
    leading, others = set(first[:depth]), set(second[:depth])
    return len(leading & others) / max(len(leading), len(others))
