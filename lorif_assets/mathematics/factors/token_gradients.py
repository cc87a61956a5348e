"""Factors of gradients from their tokens, G = X^T dY, without forming any G, and when that is the cheaper way.

Subspace iteration asks for products with a few columns alone: G V = X^T (dY V) takes T (d1 + d2) multiplications for each
column, G itself T d1 d2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lorif_assets.mathematics.factors.low_rank import ScaledMatrices, power_of_two
from lorif_assets.mathematics.factors.subspace_iteration import MatrixBatch, basis_width
from lorif_assets.mathematics.matrix_products import product


@dataclass(frozen=True)
class TokenGradients:
    """Gradients G = X^T dY [n, d1, d2] as the tokens that they are sums over; rows of padding are zero on either side."""

    x: Float[Tensor, "n T d1"]
    dy: Float[Tensor, "n T d2"]

    @classmethod
    def of_calls(cls, calls: Sequence[tuple[Float[Tensor, "n T d1"], Float[Tensor, "n T d2"]]]) -> "TokenGradients":
        """Return the gradients that are sums over the tokens of several calls of a layer."""
        if len(calls) == 1:
            return cls(*calls[0])
        return cls(torch.cat([x for x, _ in calls], dim=1), torch.cat([dy for _, dy in calls], dim=1))

    @classmethod
    def joined(cls, parts: "Sequence[TokenGradients]") -> "TokenGradients":
        """Return the gradients of several batches of equal shapes as one."""
        if len(parts) == 1:
            return parts[0]
        return cls(torch.cat([part.x for part in parts]), torch.cat([part.dy for part in parts]))

    def at(self, rows: Int[Tensor, " m"] | None) -> "TokenGradients":
        """Return those of some rows; None: of all."""
        return self if rows is None else TokenGradients(self.x[rows], self.dy[rows])

    @property
    def numbers(self) -> int:
        """Numbers that are held."""
        return self.x.numel() + self.dy.numel()

    def formed(self) -> Float[Tensor, "n d1 d2"]:
        """Return the gradients."""
        return product(self.x.mT, self.dy)

    def scaled(self) -> ScaledMatrices:
        """Return the gradients as what can be multiplied, unformed: products are scaled, which are small, not the tokens."""
        x, dy = self.x, self.dy
        in_size, out_size = power_of_two(x, 60), power_of_two(dy, 60)
        matrices = MatrixBatch(
            x.shape[2],
            dy.shape[2],
            lambda v: (x.mT @ ((dy @ v) / out_size)) / in_size,
            lambda u: (dy.mT @ ((x @ u) / in_size)) / out_size,
            like=x[:, :0],
        )
        return ScaledMatrices(matrices, in_size * out_size)


@dataclass(frozen=True)
class FactorWork:
    """What it takes to whiten and factorise one example's gradient in one layer, in multiplications.

    `whitening` has the products for each number of a token on either side: 0 without whitening, the side's width by all
    eigenvectors, twice their number by a few. `fisher_share` is the share of examples whose rotated gradient is squared.
    """

    tokens: int
    d1: int
    d2: int
    c: int
    rounds: int
    whitening: tuple[int, int]
    fisher_share: float

    @property
    def formed(self) -> float:
        """Multiplications where the gradient is formed."""
        rotation = self._rotation
        w_in, w_out = self.whitening
        # By all eigenvectors of both sides, whitening is the rotation that the squares are taken of.
        is_whole = self.whitening == (self.d1, self.d2)
        whitening = rotation if is_whole else self.d1 * self.d2 * (w_in + w_out) + self.fisher_share * rotation
        iterated = (2 * self.rounds + 1) * self.d1 * self.d2 * self._columns
        return self.tokens * self.d1 * self.d2 + whitening + iterated

    @property
    def from_tokens(self) -> float:
        """Multiplications where it is not, but for the share of the examples that the squares need."""
        w_in, w_out = self.whitening
        whitening = self.tokens * (self.d1 * w_in + self.d2 * w_out)
        iterated = (2 * self.rounds + 1) * self.tokens * (self.d1 + self.d2) * self._columns
        return whitening + iterated + self.fisher_share * (self.tokens * self.d1 * self.d2 + self._rotation)

    @property
    def is_cheaper_from_tokens(self) -> bool:
        """Whether not to form it is the cheaper way: where sequences are short and layers wide."""
        return self.from_tokens < self.formed

    @property
    def _rotation(self) -> int:
        return self.d1 * self.d2 * (self.d1 + self.d2)

    @property
    def _columns(self) -> int:
        return basis_width(self.c, self.d1, self.d2)
