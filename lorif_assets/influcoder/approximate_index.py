"""An approximate index of embeddings: an inverted file of 8-bit vectors, by faiss. Imported inside steps only.

Vectors lie in about sqrt(n) cells around k-means centroids; a search looks into the cells whose centroids are most
similar to the query. The least similar vectors are the most similar ones to the negated query, so cells serve both ends;
a graph of neighbours would serve only the near end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isqrt

import faiss
import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

Blocks = Callable[[], Iterator[Float[Tensor, "n h"]]]

_TRAINED_PER_CELL = 64
_FEWEST_PER_CELL = 39  # below, faiss warns that centroids are badly placed


@dataclass(frozen=True)
class ApproximateIndex:
    """Finds the largest inner products without computing all; a vector takes its width in bytes, and eight more."""

    index: faiss.IndexIVF

    @classmethod
    def build(cls, blocks: Blocks, n: int, seed: int) -> "ApproximateIndex":
        """Index vectors, reading them twice, block by block; the same vectors give the same index.

        Args:
            blocks: yields all vectors at each call, always in the same order.
            n: how many.
            seed: of the sample that the cells are fitted to.
        """
        cells = max(1, min(isqrt(n), n // _FEWEST_PER_CELL))
        chosen = np.sort(np.random.default_rng(seed).permutation(n)[: _TRAINED_PER_CELL * cells])
        sample, first = [], 0
        for block in blocks():
            inside = chosen[(chosen >= first) & (chosen < first + len(block))] - first
            sample.append(_matrix(block[torch.from_numpy(inside)]))
            first += len(block)
        vectors = np.concatenate(sample)
        index = faiss.index_factory(vectors.shape[1], f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed
        index.train(vectors)
        for block in blocks():
            index.add(_matrix(block))
        return cls(index)

    @classmethod
    def from_bytes(cls, content: bytes) -> "ApproximateIndex":
        """Return the index that `to_bytes` wrote."""
        return cls(faiss.deserialize_index(np.frombuffer(content, dtype=np.uint8)))

    def to_bytes(self) -> bytes:
        """Return the index as the content of a file."""
        content: bytes = faiss.serialize_index(self.index).tobytes()
        return content

    def search(self, queries: Float[Tensor, "q h"], k: int, probed_share: float) -> Int[Tensor, "q k"]:
        """Return the positions of about the k largest inner products of each query, largest first.

        Args:
            queries: any vectors.
            k: how many; all vectors if there are fewer.
            probed_share: share of the cells to look into; all cells if these hold fewer than k vectors.
        """
        k, vectors = min(k, self.index.ntotal), _matrix(queries)
        probes = max(1, round(probed_share * self.index.nlist))
        _, positions = self.index.search(vectors, k, params=faiss.SearchParametersIVF(nprobe=probes))
        if (positions < 0).any():
            _, positions = self.index.search(vectors, k, params=faiss.SearchParametersIVF(nprobe=self.index.nlist))
        return torch.from_numpy(positions)


def _matrix(vectors: Float[Tensor, "n h"]) -> Float32[np.ndarray, "n h"]:
    return np.ascontiguousarray(vectors.float().cpu().numpy())
