"""Texts that say nearly the same."""

import re
from collections.abc import Sequence

_WORDS = re.compile(r"\w+")
_SHINGLE_WORDS = 5
_ALIKE = 0.8
_MOST_WORDS = 2_000


def first_of_its_kind(texts: Sequence[str]) -> list[int]:
    """Return for each text the position of the first one that it nearly repeats; of its own where there is none.

    Two texts are alike where they share 80 % of their runs of five words (Jaccard), of the first 2,000 words. Every two are
    compared: for some hundred texts.
    """
    shingled = [_shingles(text) for text in texts]
    firsts: list[int] = []
    found = []
    for position, own in enumerate(shingled):
        first = next((other for other in firsts if _alike(own, shingled[other])), position)
        if first == position:
            firsts.append(position)
        found.append(first)
    return found


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = _WORDS.findall(text.casefold())[:_MOST_WORDS]
    if len(words) <= _SHINGLE_WORDS:
        return frozenset([tuple(words) or (text,)])
    return frozenset(zip(*(words[start:] for start in range(_SHINGLE_WORDS)), strict=False))


def _alike(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> bool:
    smaller, larger = sorted((len(one), len(other)))
    if smaller < _ALIKE * larger:
        return False
    shared = len(one & other)
    return shared >= _ALIKE * (len(one) + len(other) - shared)
