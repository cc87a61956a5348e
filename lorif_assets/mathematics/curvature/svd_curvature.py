"""The curvature by leading eigenpairs: its state, how far added data left its eigenvectors, and its inverse."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.curvature.drift import BasisDrift
from lorif_assets.mathematics.curvature.svd import CurvatureState, Spectrum, random_basis
from lorif_assets.mathematics.curvature.svd_preconditioner import (
    LEADING_EXTRA,
    CurvatureForm,
    DampingRule,
    Preconditioner,
    damping,
)
from lorif_assets.mathematics.factors.low_rank import GradientFactors


@dataclass(frozen=True)
class SvdInverse:
    """How to invert a state: from r leading eigenpairs, damped by `factor` times what `rule` names, in a form."""

    r: int
    rule: DampingRule
    factor: float
    form: CurvatureForm

    def of(self, spectrum: Spectrum) -> Preconditioner:
        """Return the damped inverse."""
        return Preconditioner.from_spectrum(spectrum, self.rule, self.factor, self.form)


@dataclass(frozen=True)
class SvdCurvature:
    """Leading eigenpairs of H = sum of g g^T over the factorised gradients; parts are blocks of factors.

    `earlier_vectors` [D, r] are the eigenvectors of a stored state before anything was added; `drift` measures what is
    added in them. Both are None if the basis was fitted to all that the state holds.
    """

    state: CurvatureState
    inverse: SvdInverse
    drift: BasisDrift | None = None
    earlier_vectors: Float[Tensor, "D r"] | None = None

    @classmethod
    def empty(cls, dimension: int, width: int, seed: int, inverse: SvdInverse, device: torch.device) -> "SvdCurvature":
        """Return the curvature of no examples in a random basis [D, min(width, D)] of this seed."""
        return cls(CurvatureState.empty(random_basis(dimension, width, seed).to(device)), inverse)

    @classmethod
    def from_stored(cls, tensors: Mapping[str, Tensor], row: Mapping[str, Any], inverse: SvdInverse) -> "SvdCurvature":
        """Return the curvature from its tensors and its row."""
        state = CurvatureState(tensors["basis"], tensors["image"], row["trace"], row["n_examples"])
        drift = BasisDrift(row["fitted_energy"], row["added_energy"], row["added_energy_captured"])
        return cls(state, inverse, drift, tensors["vectors"])

    @property
    def count(self) -> int:
        """Examples that it holds."""
        return self.state.count

    def add(self, part: GradientFactors) -> "SvdCurvature":
        """Return the curvature with more examples, after measuring their energy in the earlier eigenvectors."""
        return replace(self, state=self.state.add(part), drift=self._drift_with(part))

    def remove(self, part: GradientFactors) -> "SvdCurvature":
        """Return the curvature without examples that it holds.

        Raises:
            ValueError: it holds fewer.
        """
        return replace(self, state=self.state.remove(part))

    def exchange(self, removed: GradientFactors, added: GradientFactors) -> "SvdCurvature":
        """Return the curvature with some examples in place of others that it holds.

        Raises:
            ValueError: it holds fewer than those.
        """
        return replace(self, state=self.state.exchange(removed, added), drift=self._drift_with(added))

    def _drift_with(self, added: GradientFactors) -> BasisDrift | None:
        if self.drift is None or self.earlier_vectors is None:
            return self.drift
        return self.drift.add(self.earlier_vectors, added)

    def refined(self) -> "SvdCurvature":
        """Return the curvature of no examples in the basis qr(Z): adding the data again completes a subspace iteration."""
        return SvdCurvature(self.state.refined(), self.inverse)

    def preconditioner(self) -> Preconditioner:
        """Return the damped inverse."""
        return self.inverse.of(self.spectrum)

    def tensors(self) -> dict[str, Tensor]:
        """Return basis, image and eigenvectors."""
        return {"basis": self.state.basis, "image": self.state.image, "vectors": self.spectrum.vectors}

    def figures(self) -> dict[str, Any]:
        """Return the eigenvalues, largest first and up to ten beyond r, the damping, and the energy that is captured."""
        spectrum, drift = self.spectrum, self.measured_drift
        return {
            "r": spectrum.vectors.shape[1],
            "eigenvalues": spectrum.eigenvalues.tolist(),
            "trace": spectrum.trace,
            "damping": damping(self.inverse.rule, self.inverse.factor, spectrum),
            "captured_energy": spectrum.captured_energy,
            "fitted_energy": drift.fitted_share,
            "added_energy": drift.energy,
            "added_energy_captured": drift.captured,
        }

    @property
    def measured_drift(self) -> BasisDrift:
        """The drift; without added data if the basis was fitted to all that the state holds."""
        return self.drift or BasisDrift(self.spectrum.captured_energy)

    @cached_property
    def spectrum(self) -> Spectrum:
        """The leading r eigenpairs and ten more eigenvalues, computed from the state.

        Raises:
            ValueError: the state is not finite.
        """
        return self.state.spectrum(self.inverse.r, LEADING_EXTRA)


def stored_spectrum(tensors: Mapping[str, Tensor], row: Mapping[str, Any]) -> Spectrum:
    """Return the eigenpairs as they were stored, without computing anything."""
    return Spectrum(torch.tensor(row["eigenvalues"], dtype=torch.float64), tensors["vectors"], row["trace"])
