"""Texts that say nearly the same, found by MinHash (A. Broder 1997) over their words."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datasketch import MinHash

SHINGLE_WORDS = 3
THRESHOLD = 0.8
"""Of the Jaccard similarity of two texts' shingles, from which they are near-duplicates."""
_PERMUTATIONS = 128


class FirstTexts:
    """Texts, one after the other, of which none nearly repeats an earlier one, by the places that they are given."""

    def __init__(self) -> None:
        from datasketch import MinHashLSH

        self._index = MinHashLSH(num_perm=_PERMUTATIONS, params=_bands())
        self._hashes: dict[int, MinHash] = {}

    def first(self, place: int, text: str) -> int:
        """Return the place of the first text that this one nearly repeats; its own, where it is kept, if there is none.

        Texts of less than three words are near-duplicates of the same words alone, and so is white space of white space.
        """
        from datasketch import MinHash

        hashed = MinHash(num_perm=_PERMUTATIONS, seed=1)
        hashed.update_batch([shingle.encode("utf-8", "replace") for shingle in shingles(text)])
        near = [at for at in sorted(self._index.query(hashed)) if hashed.jaccard(self._hashes[at]) >= THRESHOLD]
        if near:
            return int(near[0])
        self._index.insert(place, hashed)
        self._hashes[place] = hashed
        return place


@cache
def _bands() -> tuple[int, int]:
    """Return the bands of the index and the rows of each, which suit the threshold best: a search of a tenth of a second."""
    from datasketch import MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=_PERMUTATIONS)
    return index.b, index.r


def near_duplicates(texts: Sequence[str]) -> list[list[int]]:
    """Return the texts in groups of near-duplicates, by their positions.

    A text joins the first group whose first text it is a near-duplicate of; groups are in the order of their first texts.
    """
    seen, groups = FirstTexts(), dict[int, list[int]]()
    for place, text in enumerate(texts):
        groups.setdefault(seen.first(place, text), []).append(place)
    return list(groups.values())


def shingles(text: str) -> set[str]:
    """Return the runs of three words of a text, in lower case; all of its words where there are fewer."""
    words = text.lower().split()
    return {" ".join(words[at : at + SHINGLE_WORDS]) for at in range(max(1, len(words) - SHINGLE_WORDS + 1))}
