"""Rank-c factors of projected gradients, G ~ u v^T (docs/method.md: stage 1).

On a CPU by batched block power iteration; above rank 1 and where the narrower side is small, by the eigenvectors of the
smaller Gram matrix, which is exact. On an accelerator, or where a number of rounds is asked for, by subspace iteration
without LAPACK.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics import accelerators
from lorif_assets.mathematics.factors.jacobi_eigenpairs import jacobi_eigenpairs
from lorif_assets.mathematics.factors.subspace_iteration import ROUNDS, MatrixBatch, leading_triples
from lorif_assets.mathematics.lapack_batches import eigenvectors, orthonormal

_START_SEED = 20_601
_BLOCK_NUMBERS = 1 << 26
# Up to this width of the narrower side, one small eigenproblem takes less time than iterations with a QR each (3 to 12
# times less on a CPU), and gives the best factors.
_GRAM_WIDTH = 128
# A CPU's allocator reuses blocks of this size; larger ones are fresh pages each time, and their page faults cost more
# than the products.
_CPU_BLOCK_NUMBERS = 1 << 20


@dataclass(frozen=True)
class GradientFactors:
    """Factors u [n, d1, c], v [n, d2, c] of n projected gradients; v has orthonormal columns, all weight sits in u."""

    u: Float[Tensor, "n d1 c"]
    v: Float[Tensor, "n d2 c"]
    are_singular: bool = False
    """Whether u's columns are known to be orthogonal too, largest first."""

    def leading(self, rows: slice, rank: int) -> "GradientFactors":
        """Return the leading components of some rows' factors, which must be singular."""
        return GradientFactors(self.u[rows, :, :rank], self.v[rows, :, :rank], self.are_singular)

    def to(self, device: torch.device) -> "GradientFactors":
        """Return the factors on a device."""
        return GradientFactors(self.u.to(device), self.v.to(device), self.are_singular)

    def dense(self) -> Float[Tensor, "n D"]:
        """Return vec(u v^T), row-major: [n, d1 d2]."""
        return torch.einsum("nic,njc->nij", self.u, self.v).flatten(1)

    def dense_blocks(self) -> Iterator[Float[Tensor, "m D"]]:
        """Yield vec(u v^T) of all examples, 256 MiB in FP32 at a time, on a CPU 4."""
        numbers = min(_BLOCK_NUMBERS, _CPU_BLOCK_NUMBERS) if self.u.device.type == "cpu" else _BLOCK_NUMBERS
        rows = max(1, numbers // (self.u.shape[1] * self.v.shape[1]))
        for u, v in zip(self.u.split(rows), self.v.split(rows), strict=True):
            yield GradientFactors(u, v).dense()

    def squared_norms(self) -> Float[Tensor, " n"]:
        """Return ||u v^T||_F^2 of each example, in FP64, exactly from the factors: sum((u^T u) * (v^T v))."""
        u, v = self.u.double(), self.v.double()
        return torch.einsum("nic,nid,njc,njd->n", u, u, v, v)


def power_iterations(c: int) -> int:
    """Return the default number of iterations: 8 for rank 1, else 16."""
    return 8 if c == 1 else 16


def low_rank_factors(
    gradients: Float[Tensor, "n d1 d2"], c: int, iterations: int | None = None, rounds: int | None = None
) -> GradientFactors:
    """Factorise n gradients at once.

    Args:
        gradients: G [n, d1, d2]; factorised in its own precision, FP32 at least.
        c: rank; at c >= min(d1, d2) the product u v^T is G itself, and the factors have min(d1, d2) columns.
        iterations: of the block power method; without a number, method and iterations follow from the shape. On an
            accelerator, rounds of subspace iteration.
        rounds: of subspace iteration, on a CPU too.

    Returns:
        The factors. A zero gradient gives u = 0 and some orthonormal v.
    """
    if c < 1:
        raise ValueError(f"the rank of the factors must be at least 1, found {c}")
    g = gradients.to(torch.promote_types(gradients.dtype, torch.float32))
    _, d1, d2 = g.shape
    c = min(c, d1, d2)
    if rounds is not None or accelerators.is_accelerator(g.device):
        return factors_in_rounds([ScaledMatrices.of(g)], c, rounds or iterations or ROUNDS)[0]
    # Norms square the numbers, so gradients are scaled to size 1 first.
    size = power_of_two(g, 120)
    g = g / size
    if iterations is None and c > 1 and min(d1, d2) <= _GRAM_WIDTH:
        v = _leading_directions(g, c)
    else:
        v = _iterated_directions(g, c, power_iterations(c) if iterations is None else iterations)
    return GradientFactors(u=(g @ v) * size, v=v)


@dataclass(frozen=True)
class ScaledMatrices:
    """Matrices as their products, and the sizes [n, 1, 1] by which these are divided."""

    matrices: MatrixBatch
    sizes: Float[Tensor, "n 1 1"]

    @classmethod
    def of(cls, gradients: Float[Tensor, "n d1 d2"]) -> "ScaledMatrices":
        """Return gradients that are formed: only products of products of theirs leave the range of FP32, and none is taken."""
        return cls(MatrixBatch.of(gradients), gradients.new_ones(len(gradients), 1, 1))


def factors_in_rounds(batches: Sequence[ScaledMatrices], c: int, rounds: int) -> list[GradientFactors]:
    """Factorise batches of gradients of several shapes at once, in rounds of subspace iteration, on any device."""
    triples = leading_triples([batch.matrices for batch in batches], c, rounds)
    return [
        GradientFactors(found.u * batch.sizes, found.v, are_singular=True)
        for batch, found in zip(batches, triples, strict=True)
    ]


def power_of_two(x: Float[Tensor, "n a b"], largest: int) -> Float[Tensor, "n 1 1"]:
    """Return for each matrix the power of two of its largest magnitude, which divides it without the loss of a digit."""
    return torch.exp2(largest_magnitude(x).frexp().exponent.clamp(-largest, largest))


def largest_magnitude(x: Float[Tensor, "n a b"]) -> Float[Tensor, "n 1 1"]:
    """Return the largest magnitude in each matrix, which is not finite if one number is not."""
    if accelerators.is_accelerator(x.device):
        norms: Tensor = torch.linalg.vector_norm(x, torch.inf, dim=(1, 2), keepdim=True)
        return norms
    # On a CPU a norm takes twenty times as long as two passes.
    return x.abs().amax(dim=(1, 2), keepdim=True)


def _iterated_directions(g: Float[Tensor, "n d1 d2"], c: int, iterations: int) -> Float[Tensor, "n d2 c"]:
    n, _, d2 = g.shape
    generator = torch.Generator().manual_seed(_START_SEED)
    start = torch.randn(d2, c, generator=generator, dtype=torch.float32)
    v = orthonormal(start.to(g).expand(n, d2, c))
    for _ in range(iterations):
        u = orthonormal(g @ v)
        v = orthonormal(g.mT @ u)
    return v


def _leading_directions(g: Float[Tensor, "n d1 d2"], c: int) -> Float[Tensor, "n d2 c"]:
    """Return the leading right singular vectors from the eigenvectors of the smaller of G^T G and G G^T."""
    _, d1, d2 = g.shape
    if d2 <= d1:
        return eigenvectors(g.mT @ g)[:, :, -c:].flip(2)
    left = eigenvectors(g @ g.mT)
    return orthonormal(g.mT @ left[:, :, -c:].flip(2))


def singular_factors(factors: GradientFactors) -> GradientFactors:
    """Return the same products u v^T with orthogonal columns in u too, largest first: u = U diag(s), v = V of the SVD.

    v must have orthonormal columns, as `low_rank_factors` gives it.
    """
    if factors.u.shape[2] == 1 or factors.are_singular:
        return factors
    # The rotation that diagonalises u^T u; in FP64, because squaring halves the digits.
    u = factors.u.double()
    size = u.abs().amax(dim=(1, 2), keepdim=True)
    u = u / size.where(size > 0, 1.0)
    gram = u.mT @ u
    is_accelerated = accelerators.is_accelerator(u.device)
    turn = jacobi_eigenpairs(gram)[1] if is_accelerated else eigenvectors(gram).flip(2)
    turn = turn.to(factors.u.dtype)
    return GradientFactors(factors.u @ turn, factors.v @ turn, are_singular=True)


def reconstruction_error(gradients: Float[Tensor, "n d1 d2"], factors: GradientFactors) -> float:
    """Return ||G - u v^T||_F / ||G||_F over all n gradients; 0 where they are all zero."""
    g = gradients.double()
    difference = g.flatten(1) - factors.dense().to(g)
    norm = float(g.norm())
    return float(difference.norm()) / norm if norm else 0.0
