"""Leading singular triples of a batch of matrices by subspace iteration, in products over the whole batch alone.

The matrices need not be formed: what is asked of them is their product with a few columns from either side.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.factors.jacobi_eigenpairs import jacobi_eigenpairs
from lorif_assets.mathematics.factors.orthonormal_columns import evened_columns, orthonormal_columns
from lorif_assets.mathematics.matrix_products import tf32_products

ROUNDS = 6
"""Rounds where none are asked for: of a matrix of independent numbers, the hardest case, the components that are kept have
99 % of the squares that the best have, and of spectra that decay as j^(-1/2) 99.9 %."""

_OVERSAMPLING = 8
# From this share of the narrower side on, all of it is taken, without iterations.
_WHOLE_SHARE = 0.75
_START_SEED = 20_601


@dataclass(frozen=True)
class MatrixBatch:
    """Matrices G [n, d1, d2] as their products with columns on the right, G V [n, d1, w], and on the left, G^T U."""

    d1: int
    d2: int
    times: Callable[[Float[Tensor, "n d2 w"]], Float[Tensor, "n d1 w"]]
    transposed_times: Callable[[Float[Tensor, "n d1 w"]], Float[Tensor, "n d2 w"]]
    like: Tensor
    """A tensor of their number n, floating type and device."""

    @classmethod
    def of(cls, gradients: Float[Tensor, "n d1 d2"]) -> "MatrixBatch":
        """Return matrices that are there."""
        _, d1, d2 = gradients.shape
        return cls(d1, d2, lambda v: gradients @ v, lambda u: gradients.mT @ u, gradients)


@dataclass(frozen=True)
class SingularTriples:
    """Leading components u v^T of n matrices, largest first: v has orthonormal columns, u orthogonal ones.

    `squares` are the squared singular values, the squared norms of u's columns, in FP64.
    """

    u: Float[Tensor, "n d1 c"]
    v: Float[Tensor, "n d2 c"]
    squares: Float[Tensor, "n c"]


def basis_width(c: int, d1: int, d2: int) -> int:
    """Return how many columns are iterated for c components."""
    narrow = min(d1, d2)
    width = min(c, narrow) + _OVERSAMPLING
    return narrow if width >= _WHOLE_SHARE * narrow else width


def leading_triples(matrices: MatrixBatch, c: int, rounds: int = ROUNDS) -> SingularTriples:
    """Return the leading min(c, d1, d2) singular triples.

    Args:
        matrices: entries of size one at most; products of numbers that are far from it lose digits.
        c: components.
        rounds: of iteration, each a product from either side. The start is the same for every matrix.
    """
    n, d1, d2 = len(matrices.like), matrices.d1, matrices.d2
    c, width = min(c, d1, d2), basis_width(c, d1, d2)
    start = _start(d2, width, matrices.like.device, matrices.like.dtype)
    if width == d2:
        basis = torch.eye(d2, dtype=start.dtype, device=start.device).expand(n, d2, d2)
    elif width == d1:
        left = torch.eye(d1, dtype=start.dtype, device=start.device).expand(n, d1, d1)
        basis = orthonormal_columns(matrices.transposed_times(left), start)
    else:
        basis = start.expand(n, d2, width)
        # TF32's digits are enough for a subspace that one more round, with all digits, brings to its place.
        with tf32_products(allowed=True):
            for _ in range(rounds - 1):
                basis = evened_columns(matrices.transposed_times(evened_columns(matrices.times(basis))))
        basis = orthonormal_columns(matrices.transposed_times(evened_columns(matrices.times(basis))), start)
    images = matrices.times(basis)
    wide = images.double()
    squares, turn = jacobi_eigenpairs(wide.mT @ wide)
    turn = turn[:, :, :c].to(images.dtype)
    return SingularTriples(images @ turn, basis @ turn, squares[:, :c].clamp(min=0.0))


@cache
def _start(d: int, width: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "d w"]:
    """Return columns in general position of a length near one, the same on every device, copied to it once."""
    generator = torch.Generator().manual_seed(_START_SEED)
    start: Tensor = torch.randn(d, width, generator=generator) / d**0.5
    return start.to(device, dtype)
