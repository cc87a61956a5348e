"""Texts that say nearly the same, found by MinHash (A. Broder 1997) over their words."""

from collections.abc import Sequence

SHINGLE_WORDS = 3
THRESHOLD = 0.8
"""Of the Jaccard similarity of two texts' shingles, from which they are near-duplicates."""
_PERMUTATIONS = 128


def near_duplicates(texts: Sequence[str]) -> list[list[int]]:
    """Return the texts in groups of near-duplicates, by their positions.

    A text joins the first group whose first text it is a near-duplicate of; groups are in the order of their first texts.
    Texts of less than three words are near-duplicates of the same words alone, and so is white space of white space.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=_PERMUTATIONS)
    groups: dict[int, list[int]] = {}
    hashes: dict[int, MinHash] = {}
    for place, text in enumerate(texts):
        hashed = MinHash(num_perm=_PERMUTATIONS, seed=1)
        hashed.update_batch([shingle.encode("utf-8", "replace") for shingle in shingles(text)])
        near = [first for first in sorted(index.query(hashed)) if hashed.jaccard(hashes[first]) >= THRESHOLD]
        if near:
            groups[near[0]].append(place)
            continue
        index.insert(place, hashed)
        hashes[place], groups[place] = hashed, [place]
    return list(groups.values())


def shingles(text: str) -> set[str]:
    """Return the runs of three words of a text, in lower case; all of its words where there are fewer."""
    words = text.lower().split()
    return {" ".join(words[at : at + SHINGLE_WORDS]) for at in range(max(1, len(words) - SHINGLE_WORDS + 1))}
