"""EK-FAC: mean squared gradients along the axes of K-FAC's bases are a curvature's eigenvalues (docs/method.md).

R = Q_A^T G Q_B,   Lam = mean over examples of R * R
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.errors import LorifError
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.matrix_products import product, sum_of_squares

_SHOWN_EIGENVALUES = 256


@dataclass(frozen=True)
class FisherDiagonal:
    """Sum over examples of R * R [d1, d2] in FP64, and their number; EK-FAC's eigenvalues are the mean.

    Disjoint data add; data that were changed or withdrawn are subtracted. `count` is the number of examples that the sums
    stand for; where they are over a sample of these alone, `squared` is its size.
    """

    squares: Float[Tensor, "d1 d2"]
    count: int
    squared: int | None = None

    @classmethod
    def empty(cls, d1: int, d2: int, device: torch.device) -> "FisherDiagonal":
        """Return the sums of no data."""
        return cls(torch.zeros(d1, d2, dtype=torch.float64, device=device), 0)

    @classmethod
    def of(cls, rotated: Float[Tensor, "n d1 d2"]) -> "FisherDiagonal":
        """Return the sums of n examples."""
        return cls(sum_of_squares(rotated).double(), rotated.shape[0])

    @property
    def n_squared(self) -> int:
        """Examples whose squares were summed."""
        return self.count if self.squared is None else self.squared

    def merge(self, other: "FisherDiagonal") -> "FisherDiagonal":
        """Return the sums of two disjoint sets of data."""
        return self._changed(self.squares + other.squares, other, 1)

    def without(self, other: "FisherDiagonal") -> "FisherDiagonal":
        """Return the sums without data that they hold.

        Raises:
            ValueError: they hold fewer examples.
        """
        if other.count > self.count or other.n_squared > self.n_squared:
            raise ValueError(f"{other.count} examples cannot be removed from sums of {self.count}")
        left = self._changed((self.squares - other.squares).clamp_(min=0.0), other, -1)
        return left if left.n_squared else replace(left, squares=torch.zeros_like(left.squares))

    def _changed(self, squares: Float[Tensor, "d1 d2"], other: "FisherDiagonal", sign: int) -> "FisherDiagonal":
        are_all = self.squared is None and other.squared is None
        squared = None if are_all else self.n_squared + sign * other.n_squared
        return FisherDiagonal(squares, self.count + sign * other.count, squared)

    @property
    def eigenvalues(self) -> Float[Tensor, "d1 d2"]:
        """Lam, the mean of R * R."""
        return self.squares / max(self.n_squared, 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return the stored tensors of the sums, by name: `squares`, and of sums over a sample `squared`, its size."""
        sample = {} if self.squared is None else {"squared": torch.tensor(self.squared)}
        return {"squares": self.squares, **sample}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], count: int, device: torch.device) -> "FisherDiagonal":
        """Return the sums that stand for `count` examples from their stored tensors."""
        squared = int(tensors["squared"]) if "squared" in tensors else None
        return cls(tensors["squares"].double().to(device), count, squared)

    def faults(self) -> list[str]:
        """Return in words what sums of squares cannot have."""
        if bool(self.squares.isfinite().all()) and not float(self.squares.min()) < 0:
            return []
        return ["the sums are not finite and non-negative"]


@dataclass(frozen=True)
class KroneckerPreconditioner:
    """The damped inverse of eigenvalues Lam [d1, d2] in Kronecker-factored bases, for scores against whitened factors.

    M_q = R_q / (Lam + m mean Lam) / s, so that <M_q, R_i * s> = sum of R_q R_i / (Lam + m mean Lam), in the axes of the
    whitened gradients.
    """

    bases: KfacBases
    eigenvalues: Float[Tensor, "d1 d2"]
    damping: float
    """m, in multiples of the mean eigenvalue."""

    @property
    def absolute_damping(self) -> float:
        """What is added to every eigenvalue."""
        return self.damping * float(self.eigenvalues.mean())

    def apply(self, gradients: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return vec(M_q) of n gradients vec(G_q).

        A layer in which no training example has a gradient gives zeros: it says nothing about any example.
        """
        scaled = self._divided(gradients, self.bases.scale)
        return torch.zeros_like(gradients) if scaled is None else self.bases.in_factor_axes(scaled).flatten(1)

    def inverse(self, gradients: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return Q_A (R / (Lam + m mean Lam)) Q_B^T of n gradients vec(G); zeros, as above."""
        divided = self._divided(gradients, None)
        if divided is None:
            return torch.zeros_like(gradients)
        outputs = product(divided, self.bases.q_out.mT)
        return product(outputs.mT, self.bases.q_in.mT).mT.flatten(1)

    def whitened_form(self, whitened: Float[Tensor, "n D"]) -> Float[Tensor, " n"]:
        """Return g^T H^-1 g in FP64 of n gradients that are given whitened: sum of R^2 / (Lam + m mean Lam); zeros, as above.

        Nothing is turned: the inverse is diagonal along the axes in which whitened gradients are stored.
        """
        damped = self._damped
        if damped is None:
            return whitened.new_zeros(len(whitened), dtype=torch.float64)
        scaled = self.bases.in_eigenbasis(whitened.unflatten(1, damped.shape)).flatten(1)
        weights = (damped * self.bases.scale.double().square()).reciprocal().flatten()
        return scaled.double().square() @ weights

    @property
    def _damped(self) -> Float[Tensor, "d1 d2"] | None:
        """Lam + m mean Lam; None where no training example has a gradient."""
        mean = self.eigenvalues.mean()
        return self.eigenvalues + self.damping * mean if bool(mean > 0) else None

    def _divided(self, gradients: Float[Tensor, "n D"], scale: Tensor | None) -> Float[Tensor, "n d1 d2"] | None:
        """Return R / (Lam + m mean Lam), and by a scale; None where no training example has a gradient."""
        damped = self._damped
        if damped is None:
            return None
        divisor = (damped if scale is None else damped * scale.double()).to(gradients)
        return self.bases.rotate(gradients.unflatten(1, divisor.shape)) / divisor

    @property
    def axis_sizes(self) -> Float[Tensor, "d1 d2"]:
        """How large whitened training gradients are along the axes in which they are stored."""
        return self.bases.axis_sizes(self.eigenvalues)

    @property
    def norm_weight(self) -> float:
        """sum of Lam / (Lam + m mean Lam), over the sum of Lam s^2; 0 without training gradients."""
        values = self.eigenvalues.double()
        mean = values.mean()
        if not bool(mean > 0):
            return 0.0
        whitened = (values * self.bases.scale.double().square()).sum()
        return float((values / (values + self.damping * mean)).sum() / whitened)


@dataclass(frozen=True)
class EkfacCurvature:
    """EK-FAC: the mean squared gradients along the axes of K-FAC's bases replace K-FAC's own eigenvalues.

    Parts are the sums over a shard; the bases are fitted beforehand and stay fixed. `damping` is in multiples of the mean
    eigenvalue.
    """

    bases: KfacBases
    sums: FisherDiagonal
    damping: float

    @classmethod
    def empty(cls, bases: KfacBases, damping: float) -> Self:
        """Return the curvature of no examples."""
        return cls(bases, FisherDiagonal.empty(len(bases.a), len(bases.b), bases.a.device), damping)

    @property
    def count(self) -> int:
        """Examples that it holds."""
        return self.sums.count

    @property
    def eigenvalues(self) -> Float[Tensor, "d1 d2"]:
        """Lam, in FP64.

        Raises:
            LorifError: the sums are over a sample that holds none of the examples.
        """
        if self.count and not self.sums.n_squared:
            raise LorifError(
                f"none of {self.count} examples fell into the sample that the Fisher diagonal is summed over, so there is no "
                "curvature; raise `recipe.fisher_share`"
            )
        return self.sums.eigenvalues

    def add(self, part: FisherDiagonal) -> Self:
        """Return the curvature with more examples."""
        return replace(self, sums=self.sums.merge(part))

    def remove(self, part: FisherDiagonal) -> Self:
        """Return the curvature without examples that it holds.

        Raises:
            ValueError: it holds fewer.
        """
        return replace(self, sums=self.sums.without(part))

    def exchange(self, removed: FisherDiagonal, added: FisherDiagonal) -> Self:
        """Return the curvature with some examples in place of others that it holds.

        Raises:
            ValueError: it holds fewer than those.
        """
        return self.remove(removed).add(added)

    def refined(self) -> Self:
        """Return the curvature of no examples: its data cannot improve the bases."""
        return self.empty(self.bases, self.damping)

    def preconditioner(self) -> KroneckerPreconditioner:
        """Return the damped inverse."""
        return KroneckerPreconditioner(self.bases, self.eigenvalues, self.damping)

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums of R * R in FP64, and the number of examples in them if those are a sample."""
        return self.sums.tensors()

    def figures(self) -> dict[str, Any]:
        """Return the largest eigenvalues, their sum, and the damping."""
        values = self.eigenvalues
        return {
            "eigenvalues": values.flatten().topk(min(_SHOWN_EIGENVALUES, values.numel())).values.tolist(),
            "trace": float(values.sum()),
            "damping": self.damping * float(values.mean()),
        }
