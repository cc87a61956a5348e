"""The curvature of one layer as a state that is linear in the data (docs/method.md: stage 2, "a curvature state that adds up").

H = sum_i g_i g_i^T over the factorised gradients, not centred and not divided by N, is kept as its image
Z = H Omega of a fixed orthonormal basis Omega [D, k], its trace and the number of examples. Disjoint data add; data
that were changed or withdrawn are subtracted. Leading eigenpairs come out by the Nystrom formula for a positive
semi-definite matrix (Tropp, Yurtsever, Udell, Cevher 2017, algorithm 3).
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.matrix_products import add_product, product

ORTHONORMAL = 1e-3
"""The most by which an entry of V^T V may differ from that of the identity."""


@dataclass(frozen=True)
class Spectrum:
    """Leading eigenvalues, largest first, and the eigenvectors of the first of them.

    `eigenvalues` [m] has at least as many entries as `vectors` [D, r] has columns; `trace` is that of H.
    """

    eigenvalues: Float[Tensor, " m"]
    vectors: Float[Tensor, "D r"]
    trace: float

    @property
    def captured_energy(self) -> float:
        """Share of the trace in the r eigenpairs that are kept, from 0 to 1."""
        leading = float(self.eigenvalues[: self.vectors.shape[1]].sum())
        return min(leading / self.trace, 1.0) if self.trace > 0 else 0.0

    @property
    def deviation(self) -> float:
        """The largest entry of V^T V - I."""
        vectors = self.vectors.double()
        r = vectors.shape[1]
        return float((vectors.mT @ vectors - torch.eye(r)).abs().max()) if r else 0.0

    def faults(self) -> list[str]:
        """Return in words what a curvature's spectrum cannot have."""
        values, found = self.eigenvalues.tolist(), []
        if any(left < right for left, right in pairwise(values)) or min(values, default=0) < 0:
            found.append("the eigenvalues are not sorted and non-negative")
        if sum(values[: self.vectors.shape[1]]) > self.trace * (1 + ORTHONORMAL):
            found.append(f"the eigenvalues add up to more than the trace {self.trace:.4g}")
        if self.deviation > ORTHONORMAL:
            found.append(f"V^T V differs from the identity by {self.deviation:.2g}, allowed is {ORTHONORMAL}")
        return found


def random_basis(dimension: int, k: int, seed: int) -> Float[Tensor, "D k"]:
    """Return an orthonormal basis [D, min(k, D)] from a seed: the identity where k reaches D, an exact state."""
    if k >= dimension:
        return torch.eye(dimension)
    generator = torch.Generator().manual_seed(seed)
    return _range_basis(torch.randn(dimension, k, generator=generator))


@dataclass(frozen=True)
class CurvatureState:
    """Basis Omega [D, k], image Z [D, k] = H Omega, trace of H, and the number of examples that it holds."""

    basis: Float[Tensor, "D k"]
    image: Float[Tensor, "D k"]
    trace: float
    count: int

    @classmethod
    def empty(cls, basis: Float[Tensor, "D k"]) -> "CurvatureState":
        """Return the state of no data in the given basis."""
        return cls(basis, torch.zeros_like(basis), 0.0, 0)

    def add(self, factors: GradientFactors) -> "CurvatureState":
        """Return the state with more examples."""
        return self._changed(factors, torch.ones(len(factors.u)), factors.squared_norms().sum())

    def remove(self, factors: GradientFactors) -> "CurvatureState":
        """Return the state without examples that it holds.

        Raises:
            ValueError: it holds fewer.
        """
        return self._changed(factors, -torch.ones(len(factors.u)), -factors.squared_norms().sum())

    def exchange(self, removed: GradientFactors, added: GradientFactors) -> "CurvatureState":
        """Return the state with some examples in place of others that it holds, in one pass over the image.

        Raises:
            ValueError: it holds fewer than those.
        """
        if len(removed.u) == self.count:
            return self.remove(removed).add(added)
        signs = torch.cat([-torch.ones(len(removed.u)), torch.ones(len(added.u))])
        trace = added.squared_norms().sum() - removed.squared_norms().sum()
        joined = GradientFactors(torch.cat([removed.u, added.u]), torch.cat([removed.v, added.v]))
        return self._changed(joined, signs, trace)

    def merge(self, other: "CurvatureState") -> "CurvatureState":
        """Return the state of two disjoint sets of data.

        Raises:
            ValueError: their bases differ, so that the images cannot be added.
        """
        if not torch.equal(self.basis, other.basis):
            raise ValueError(
                "curvature states add only in the same basis; rebuild one of them in the basis of the other"
            )
        return CurvatureState(self.basis, self.image + other.image, self.trace + other.trace, self.count + other.count)

    def refined(self) -> "CurvatureState":
        """Return an empty state in the basis qr(Z): one more pass over the data completes a subspace iteration."""
        return CurvatureState.empty(_range_basis(self.image))

    def spectrum(self, r: int, n_extra: int = 0) -> Spectrum:
        """Return the leading r eigenpairs, and `n_extra` more eigenvalues where the basis has room for them.

        The Nystrom formula with shift nu = eps ||Z||, in FP64: Y = Z + nu Omega, C = chol(Omega^T Y), F = Y C^-T, and
        the thin SVD of F gives vectors and sqrt(eigenvalues + nu).

        Raises:
            ValueError: the image is not finite.
        """
        k = self.basis.shape[1]
        r, values = min(r, k), min(r + n_extra, k)
        omega, image = self.basis.double(), self.image.double()
        norm = float(torch.linalg.matrix_norm(image)) if k else 0.0
        if not math.isfinite(norm):
            raise ValueError(
                "the curvature is not finite: an example's factors hold NaN, infinity or numbers too large"
            )
        if norm == 0.0:
            return Spectrum(image.new_zeros(values), self.basis[:, :r], self.trace)
        factor, shift = _shifted_factor(omega, image, norm)
        vectors, singular, _ = torch.linalg.svd(factor, full_matrices=False)
        eigenvalues = (singular.square() - shift).clamp_(min=0.0)
        return Spectrum(eigenvalues[:values], vectors[:, :r].to(self.basis.dtype), self.trace)

    def _changed(self, factors: GradientFactors, signs: Float[Tensor, " n"], trace: Tensor) -> "CurvatureState":
        """Return the state with each example added or subtracted, as its sign says, and so much more of a trace."""
        n_removed = int((signs < 0).sum())
        if n_removed > self.count:
            raise ValueError(f"{n_removed} examples cannot be removed from a state of {self.count}")
        count = self.count + len(signs) - 2 * n_removed
        if not count:
            # What rounding leaves in an emptied state is not curvature.
            return self.empty(self.basis)
        image, first = self.image, 0
        for block in factors.dense_blocks():
            g = block.to(self.basis)
            projected = product(g, self.basis).mul_(signs[first : first + len(g)].to(g).unsqueeze(1))
            if first:
                add_product(image, g.mT, projected)
            else:
                # The state that was keeps its own.
                image = product(g.mT, projected).add_(self.image)
            first += len(g)
        return replace(self, image=image, trace=max(self.trace + float(trace), 0.0), count=count)


def _range_basis(x: Float[Tensor, "D k"]) -> Float[Tensor, "D k"]:
    q: Tensor = torch.linalg.qr(x).Q
    return q


def _shifted_factor(omega: Tensor, image: Tensor, norm: float) -> tuple[Tensor, float]:
    """Return F [D, k] with F F^T ~ H + nu I on the range, and the shift nu that makes it well conditioned."""
    shift = torch.finfo(torch.float32).eps * norm
    while True:
        shifted = image + shift * omega
        gram = omega.mT @ shifted
        lower, failed = torch.linalg.cholesky_ex((gram + gram.mT) / 2)
        if not bool(failed):
            factor: Tensor = torch.linalg.solve_triangular(lower, shifted.mT, upper=False).mT
            return factor, shift
        # The image was summed in FP32: its rounding can exceed the first shift on a rank-deficient H.
        shift *= 4
