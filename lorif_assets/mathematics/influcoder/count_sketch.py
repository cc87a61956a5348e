"""CountSketch (Charikar, Chen, Farach-Colton 2002): a fixed sparse random map that keeps inner products on average.

Each coordinate i of a vector goes to one of `dim` buckets h(i) with a sign s(i): z[h(i)] += s(i) g[i]. Then
E <z_a, z_b> = <a, b>, with variance at most (||a||^2 ||b||^2 + <a, b>^2) / dim.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class CountSketch:
    """Buckets and signs of every coordinate of a vector that consists of named parts."""

    dim: int
    buckets: Mapping[str, Int[Tensor, " p"]]
    signs: Mapping[str, Float[Tensor, " p"]]

    @classmethod
    def draw(cls, sizes: Mapping[str, int], dim: int, seed: int, device: torch.device | None = None) -> "CountSketch":
        """Draw a sketch of vectors whose parts have these sizes, in this order.

        The bits are numpy's Philox stream, which is the same on every machine and in every release.

        Raises:
            ValueError: `dim` is not positive.
        """
        if dim < 1:
            raise ValueError(f"a sketch needs at least one bucket, found dim = {dim}")
        stream = np.random.Philox(key=seed)
        buckets, signs = {}, {}
        for name, size in sizes.items():
            bits = np.atleast_1d(stream.random_raw(size))
            buckets[name] = torch.from_numpy(((bits >> np.uint64(1)) % np.uint64(dim)).astype(np.int64)).to(device)
            signs[name] = torch.from_numpy(((bits & np.uint64(1)) * 2.0 - 1.0).astype(np.float32)).to(device)
        return cls(dim, buckets, signs)

    def apply(self, parts: Mapping[str, Float[Tensor, "n ..."]]) -> Float[Tensor, "n dim"]:
        """Return the sketches of n vectors, added up in FP32 (FP64 for FP64 parts).

        Raises:
            ValueError: a part is missing, unknown or of another size than the sketch was drawn for.
        """
        expected = {name: len(buckets) for name, buckets in self.buckets.items()}
        found = {name: part[0].numel() for name, part in parts.items()}
        if expected != found:
            odd = next(name for name in {**expected, **found} if expected.get(name) != found.get(name))
            raise ValueError(
                f"the sketch was drawn for {expected.get(odd, 0)} coordinates of {odd!r}, found {found.get(odd, 0)}"
            )
        n, first = _rows(parts.values())
        dtype = torch.promote_types(first.dtype, torch.float32)
        # Bucket by row: rows of the transpose are contiguous, and the scatter-add is fast on those.
        sketched = torch.zeros(self.dim, n, dtype=dtype, device=first.device)
        for name, part in parts.items():
            signed = part.flatten(1).to(dtype).mT * self.signs[name].to(first.device, dtype).unsqueeze(1)
            sketched.index_add_(0, self.buckets[name].to(first.device), signed)
        return sketched.mT.contiguous()


def _rows(parts: Iterable[Tensor]) -> tuple[int, Tensor]:
    first = next(iter(parts))
    return first.shape[0], first
