"""The damped inverse of a layer's curvature, applied to query gradients (docs/method.md: stage 2)."""

from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.curvature.svd import Spectrum
from lorif_assets.mathematics.matrix_products import product

LEADING_EXTRA = 10
"""Eigenvalues beyond r that the paper's damping rule averages over."""


class CurvatureForm(StrEnum):
    """What takes the place of H outside its leading eigenvectors."""

    TAIL_CORRECTED = "tail_corrected"  # its mean eigenvalue
    TRUNCATED = "truncated"  # nothing: the paper's


class DampingRule(StrEnum):
    """What the damping factor multiplies."""

    TRACE = "trace"  # tr H / D, the mean eigenvalue
    LEADING = "leading"  # the mean of the leading r + 10 eigenvalues: the paper's rule, with factor 0.1
    ABSOLUTE = "absolute"  # 1: the factor is the damping itself


def damping(rule: DampingRule, factor: float, spectrum: Spectrum) -> float:
    """Return lambda for one layer.

    Args:
        rule: what `factor` multiplies.
        factor: the multiple; with the trace rule 1.0 is our default, 0.5 the one of the authors' release, 0.1 LoGRA's.
        spectrum: for the leading rule, with LEADING_EXTRA eigenvalues beyond r if the basis has them.
    """
    dimension, r = spectrum.vectors.shape
    match rule:
        case DampingRule.TRACE:
            return factor * spectrum.trace / dimension
        case DampingRule.LEADING:
            leading = spectrum.eigenvalues[: r + LEADING_EXTRA]
            return factor * float(leading.mean()) if len(leading) else 0.0
        case DampingRule.ABSOLUTE:
            return factor


@dataclass(frozen=True)
class Preconditioner:
    """(H + lambda I)^-1 of one layer from its leading eigenpairs: V [D, r], w [r]."""

    vectors: Float[Tensor, "D r"]
    eigenvalues: Float[Tensor, " r"]
    trace: float
    damping: float
    form: CurvatureForm

    @classmethod
    def from_spectrum(
        cls, spectrum: Spectrum, rule: DampingRule, factor: float, form: CurvatureForm
    ) -> "Preconditioner":
        """Return the preconditioner of a fitted spectrum."""
        r = spectrum.vectors.shape[1]
        return cls(spectrum.vectors, spectrum.eigenvalues[:r], spectrum.trace, damping(rule, factor, spectrum), form)

    @property
    def tail(self) -> float:
        """tau, the mean eigenvalue of what was cut off: (tr - sum w) / (D - r); 0 if nothing was."""
        dimension, r = self.vectors.shape
        return max(self.trace - float(self.eigenvalues.sum()), 0.0) / (dimension - r) if r < dimension else 0.0

    @property
    def axis_sizes(self) -> None:
        """None: factors are stored in the gradients' own axes."""
        return

    @property
    def norm_weight(self) -> float:
        """tr(H H^-1) / tr H, with the inverse in its form and tau for what was cut off of H; 0 without training gradients.

        Raises:
            ValueError: the damping is not positive.
        """
        if self.trace == 0.0:
            return 0.0
        self._require_damping()
        dimension, r = self.vectors.shape
        w = self.eigenvalues.double()
        kept = float((w / (w + self.damping)).sum())
        return (kept + (dimension - r) * self.tail / self._floor) / self.trace

    def apply(self, gradients: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return H^-1 g for n gradients.

        truncated:       (1 / lam) (g - V diag(w / (w + lam)) V^T g)
        tail-corrected:  (1 / (lam + tau)) (g - V V^T g) + V diag(1 / (w + lam)) V^T g

        A layer in which no training example has a gradient (trace 0) gives zeros: it says nothing about any example.

        Raises:
            ValueError: the damping is not positive.
        """
        if self.trace == 0.0:
            return torch.zeros_like(gradients)
        self._require_damping()
        floor = self._floor
        w = self.eigenvalues.to(gradients)
        v = self.vectors.to(gradients)
        # Both forms are g / floor, corrected along V to g / (w + lam).
        correction = 1.0 / (w + self.damping) - 1.0 / floor
        return gradients / floor + product(product(gradients, v) * correction, v.mT)

    def inverse(self, gradients: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return the same: stored factors are in the axes of gradients."""
        return self.apply(gradients)

    @property
    def _floor(self) -> float:
        """The damped eigenvalue outside of V."""
        return self.damping if self.form is CurvatureForm.TRUNCATED else self.damping + self.tail

    def _require_damping(self) -> None:
        if not self.damping > 0.0:
            raise ValueError(
                f"the damping must be positive, found {self.damping}: without it, the curvature has no inverse"
            )
