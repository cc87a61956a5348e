"""Texts that say nearly the same."""

import re
from collections import Counter
from collections.abc import Sequence

_WORDS = re.compile(r"\w+")
_SHINGLE_WORDS = 5
_ALIKE = 0.8
_MOST_WORDS = 2_000


def first_of_its_kind(texts: Sequence[str]) -> list[int]:
    """Return for each text the position of the first one that it nearly repeats; of its own where there is none.

    Two texts are alike where they share 80 % of their runs of five words (Jaccard), of the first 2,000 words; texts of fewer
    words where these are the same.
    """
    # The texts that are the first of their kind, by each run of words that they have, and how many runs each has.
    having: dict[tuple[str, ...], list[int]] = {}
    sizes: dict[int, int] = {}
    found = []
    for position, text in enumerate(texts):
        runs = _runs(text)
        shared = Counter(first for run in runs for first in having.get(run, ()))
        alike = (first for first, n in shared.items() if n >= _ALIKE * (len(runs) + sizes[first] - n))
        first = min(alike, default=position)
        if first == position:
            sizes[position] = len(runs)
            for run in runs:
                having.setdefault(run, []).append(position)
        found.append(first)
    return found


def _runs(text: str) -> frozenset[tuple[str, ...]]:
    words = _WORDS.findall(text.casefold())[:_MOST_WORDS]
    if len(words) <= _SHINGLE_WORDS:
        return frozenset([tuple(words) or (text,)])
    return frozenset(zip(*(words[start:] for start in range(_SHINGLE_WORDS)), strict=False))
