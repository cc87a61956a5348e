"""Texts that two samples share, word for word or nearly, which would make a held-out figure too good."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

NEAR = 0.8
"""Jaccard similarity of word trigrams at and above which two texts are near-duplicates."""


@dataclass(frozen=True)
class Overlap:
    """Two texts, one of each sample, and the Jaccard similarity of their word trigrams (1: the same trigrams)."""

    left: int
    right: int
    similarity: float


def overlaps(left: Sequence[str], right: Sequence[str], threshold: float = NEAR) -> list[Overlap]:
    """Return the pairs of texts of two samples that are equal or near-duplicates, most similar first.

    Case and punctuation do not count. Texts shorter than three words are compared as a whole.
    """
    if not left or not right:
        return []
    grams = _trigrams([*left, *right])
    a, b = grams[: len(left)], grams[len(left) :]
    return sorted(_similar(a, b, threshold), key=lambda pair: (-pair.similarity, pair.left, pair.right))


def without_near_duplicates(texts: Sequence[str], threshold: float = NEAR) -> list[int]:
    """Return positions of texts of which no two are near-duplicates; the first of any near-duplicates stays."""
    if not texts:
        return []
    grams = _trigrams(texts)
    earlier: dict[int, list[int]] = {}
    for pair in _similar(grams, grams, threshold):
        if pair.left < pair.right:
            earlier.setdefault(pair.right, []).append(pair.left)
    kept: list[int] = []
    dropped: set[int] = set()
    for position in range(len(texts)):
        if any(other not in dropped for other in earlier.get(position, [])):
            dropped.add(position)
        else:
            kept.append(position)
    return kept


def _trigrams(texts: Sequence[str]) -> csr_matrix:
    vectorizer = CountVectorizer(analyzer=_shingles, binary=True, dtype=np.int32)
    return csr_matrix(vectorizer.fit_transform(texts))


def _shingles(text: str) -> list[str]:
    words = ["".join(c for c in word if c.isalnum()) for word in text.casefold().split()]
    words = [word for word in words if word]
    # A text without words (only punctuation, say) must still equal itself.
    return [" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))] if words else [text]


def _similar(a: csr_matrix, b: csr_matrix, threshold: float) -> list[Overlap]:
    sizes_a, sizes_b = _sizes(a), _sizes(b)
    shared = (a @ b.T).tocoo()
    union = sizes_a[shared.row] + sizes_b[shared.col] - shared.data
    similarity = shared.data / union
    chosen = similarity >= threshold
    found = zip(shared.row[chosen], shared.col[chosen], similarity[chosen], strict=True)
    return [Overlap(int(i), int(j), float(s)) for i, j, s in found]


def _sizes(grams: csr_matrix) -> Int64[np.ndarray, " n"]:
    return np.asarray(grams.sum(axis=1), dtype=np.int64).ravel()
