"""Factors of signs as they are stored, eight to a byte, and their products with matrices without unpacking them.

A byte of signs times eight rows of a matrix is one of 256 sums of those rows. All 256 are computed once for a block of
examples, and each byte then adds one row of a table in place of eight: an eighth of the additions, in FP32, where products
of integers would round the matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int8, UInt8
from torch import Tensor
from torch.nn import functional

from lorif_assets.mathematics.factors.low_rank import GradientFactors

PER_BYTE = 8
"""Signs of a byte."""
_BYTES = 1 << PER_BYTE
# Numbers of a table of sums: 2 MiB, which stays in a core's caches.
_TABLE_NUMBERS = 1 << 19
# Columns of a table, at most.
_TABLE_COLUMNS = 128


def unpacked_signs(packed: UInt8[Tensor, "*shape b"], d: int) -> Int8[Tensor, "*shape d"]:
    """Return d signs, +1 or -1, from their bytes; the first lies in a byte's least significant bit."""
    # Whole bytes are looked up, with their eight signs as one integer: 5 to 10 times faster than bit by bit.
    words = _every_sign(PER_BYTE, packed.device).view(torch.int64).squeeze(1)
    return words.index_select(0, packed.flatten().int()).view(packed.shape).view(torch.int8)[..., :d]


@dataclass(frozen=True)
class PackedSigns:
    """Gradients of n examples in one layer: the sum over c components of scale * p q^T, with signs p [d1] and q [d2]."""

    scales: Float[Tensor, "n c"]
    p: UInt8[Tensor, "n c b1"]
    q: UInt8[Tensor, "n c b2"]
    d1: int
    d2: int

    def __len__(self) -> int:
        return len(self.scales)

    def __getitem__(self, examples: slice) -> "PackedSigns":
        return PackedSigns(self.scales[examples], self.p[examples], self.q[examples], self.d1, self.d2)

    def split(self, examples: int) -> "Iterator[PackedSigns]":
        """Yield the examples in their order, at most so many at a time."""
        for parts in zip(self.scales.split(examples), self.p.split(examples), self.q.split(examples), strict=True):
            yield PackedSigns(*parts, self.d1, self.d2)

    def transposed(self) -> "PackedSigns":
        """Return the transposed gradients."""
        return PackedSigns(self.scales, self.q, self.p, self.d2, self.d1)

    def factors(self) -> GradientFactors:
        """Return u and v of the same gradients, each with sqrt(scale)."""
        root = self.scales.sqrt().unsqueeze(2)
        p, q = unpacked_signs(self.p, self.d1), unpacked_signs(self.q, self.d2)
        return GradientFactors(p.float().mul_(root).mT, q.float().mul_(root).mT)


LayerFactors = GradientFactors | PackedSigns
"""A layer's factors of some examples: decoded, or signs as they are stored."""


class SignProducts:
    """Products of rows of packed signs with any number of matrices, on a CPU."""

    def __init__(self, packed: UInt8[Tensor, "m b"]) -> None:
        """Take m rows of signs."""
        # Which sum each byte is: of its own eight rows of the matrix, so each byte has a table of its own.
        self._sums = packed.int() + _BYTES * torch.arange(packed.shape[1], dtype=torch.int32)

    def of(self, matrix: Float[Tensor, "d n"]) -> Float[Tensor, "m n"]:
        """Return the signs' products with a matrix; signs that fill up the last byte are left out.

        Raises:
            ValueError: the matrix has no rows.
        """
        width = self._sums.shape[1]
        filled = functional.pad(matrix, (0, 0, 0, width * PER_BYTE - len(matrix))).unflatten(0, (width, PER_BYTE))
        found = [self._multiplied(columns) for columns in filled.split(_TABLE_COLUMNS, dim=2)]
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)

    def _multiplied(self, matrix: Float[Tensor, "b 8 n"]) -> Float[Tensor, "m n"]:
        bytes_at_once = max(1, _TABLE_NUMBERS // (_BYTES * max(matrix.shape[2], 1)))
        total: Tensor | None = None
        for first in range(0, len(matrix), bytes_at_once):
            some = slice(first, first + bytes_at_once)
            sums = self._sums[:, some] - _BYTES * first if first else self._sums[:, some]
            part: Tensor = functional.embedding_bag(sums, sums_of_eight(matrix[some]), mode="sum")
            total = part if total is None else total.add_(part)
        if total is None:
            raise ValueError("a matrix without rows has no products with signs")
        return total


def sums_of_eight(matrix: Float[Tensor, "b 8 n"]) -> Float[Tensor, "s n"]:
    """Return for each byte the 256 sums of its eight rows that signs can make, one below the other."""
    signs = _every_sign(PER_BYTE // 2, matrix.device).to(matrix.dtype)
    low, high = (signs @ rows for rows in matrix.split(PER_BYTE // 2, dim=1))
    sums: Tensor = high.unsqueeze(2) + low.unsqueeze(1)
    return sums.flatten(0, 2)


@cache
def _every_sign(bits: int, device: torch.device) -> Int8[Tensor, "values bits"]:
    """Return the signs that each number of so many bits stands for."""
    values = torch.arange(1 << bits, device=device).unsqueeze(1)
    return (((values >> torch.arange(bits, device=device)) & 1) * 2 - 1).to(torch.int8)
