"""Which examples of a ranking are taken: an end of it, all but an end, or all of them with weights."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Self

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.stats import rankdata

from lorif_assets.errors import SettingsError
from lorif_assets.influences.ranked import Side

_PERCENT = re.compile(r"(\d+|\d*\.\d+)\s*%")


@dataclass(frozen=True)
class Amount:
    """How many examples: a share of those there are (0 to 1), or a number."""

    share: float | None
    count: int | None

    @classmethod
    def parse(cls, amount: object) -> Self:
        """Return an amount from a number, or a text such as "10%" or "500".

        Raises:
            SettingsError: it is neither.
        """
        text = str(amount).strip()
        # A float such as 0.1 would be taken for a share by some.
        if isinstance(amount, str | Integral) and text.isdecimal() and int(text):
            return cls(None, int(text))
        percent = _PERCENT.fullmatch(text)
        if percent and 0 < float(percent[1]) <= 100:
            return cls(float(percent[1]) / 100, None)
        raise SettingsError(f'an amount is a share such as "10%", or a number of examples from 1; found {amount!r}')

    def of(self, total: int) -> int:
        """Return how many of `total` examples that is: of some, at least one; of a number, at most all."""
        if self.count is not None:
            return min(self.count, total)
        return min(total, max(1, round((self.share or 0.0) * total)))

    def __str__(self) -> str:
        return f"{100 * self.share:g}%" if self.share is not None else str(self.count)


@dataclass(frozen=True)
class Choice:
    """An end of a ranking, and how much of it; with `exclude`, all but that."""

    side: Side
    amount: Amount
    exclude: bool = False


Groups = Sequence[Int64[np.ndarray, " n"]]
"""The places of the examples of each group; an example may be in several."""
Repeats = Callable[[int], bool]
"""Whether the example at a place nearly repeats one that was asked about before it."""


def taken(
    values: Float64[np.ndarray, " N"], groups: Groups, choice: Choice, repeats: Repeats
) -> Int64[np.ndarray, " n"]:
    """Return the places of what is taken, in their order.

    The amount is of each group. An example that repeats one that was taken makes room for the next one in the ranking; of
    what is left beside an excluded end, later repetitions are left out. Of equal values, the first place comes first.

    Args:
        values: what examples are ranked by, the most influential highest; finite.
        groups: in which examples are ranked.
        choice: what is taken of each group.
        repeats: asked about in the order in which examples are preferred.
    """
    if not choice.exclude:
        return np.flatnonzero(_end(values, groups, choice, repeats))
    left = np.flatnonzero(~_end(values, groups, choice, lambda _place: False))
    return np.array([place for place in left if not repeats(int(place))], dtype=np.int64)


def weights(values: Float64[np.ndarray, " N"], groups: Groups, repeats: Repeats) -> Float64[np.ndarray, " N"]:
    """Return a weight for each example by its rank in its group, of mean 1 there; 0 for what repeats a better one.

    From 1/n for the lowest of n examples to 2 - 1/n for the highest; equal values share a weight. An example in several
    groups has the highest of its weights.
    """
    order = np.argsort(-values, kind="stable")
    first = np.ones(len(values), dtype=bool)
    first[[place for place in order if repeats(int(place))]] = False
    found = np.zeros(len(values))
    for members in groups:
        kept = members[first[members]]
        found[kept] = np.maximum(found[kept], (2 * rankdata(values[kept]) - 1) / max(len(kept), 1))
    return found


def _end(values: Float64[np.ndarray, " N"], groups: Groups, choice: Choice, repeats: Repeats) -> Bool[np.ndarray, " N"]:
    found = np.zeros(len(values), dtype=bool)
    preferred = -values if choice.side is Side.PROPONENTS else values
    for members in groups:
        wanted = choice.amount.of(len(members))
        for place in members[np.argsort(preferred[members], kind="stable")]:
            if not wanted:
                break
            if found[place] or not repeats(int(place)):
                found[place] = True
                wanted -= 1
    return found
