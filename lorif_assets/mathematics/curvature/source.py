"""SOURCE: influence along a training run that is cut into segments, each with one checkpoint (Bae et al. 2024, 2405.12186).

Within segment l the curvature H_l and the gradients g_l are taken to stay as they are at its checkpoint. Of gradient descent
for a time t_l (learning rate times steps), an example's part in the weights at its end is F(H_l) g_l with
F(x) = (1 - exp(-t_l x)) / x, and each later segment k lets exp(-t_k H_k) of that remain:

    score(q, i) = sum over l of  g_q^T exp(-t_L H_L) ... exp(-t_{l+1} H_{l+1}) F(H_l) g_{i,l}

g_q is the query's gradient at the last checkpoint. H_l is EK-FAC's, so that both functions act along the axes of its bases.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.curvature.ekfac import KroneckerPreconditioner
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.matrix_products import product


@dataclass(frozen=True)
class Segment:
    """A layer's curvature in one segment, and how long it was trained for, in units of one over the mean eigenvalue."""

    bases: KfacBases
    eigenvalues: Float[Tensor, "d1 d2"]
    time: float

    @classmethod
    def of(cls, preconditioner: KroneckerPreconditioner, time: float) -> "Segment":
        """Return the segment of a checkpoint's curvature; its damping is left aside, as a finite time damps by itself."""
        return cls(preconditioner.bases, preconditioner.eigenvalues, time)

    @property
    def _trained(self) -> Float[Tensor, "d1 d2"]:
        """t x: eigenvalues in units of one over the time; zeros where no training example has a gradient."""
        values = self.eigenvalues.double()
        mean = values.mean()
        return self.time * values / mean if bool(mean > 0) else torch.zeros_like(values)

    @property
    def remains(self) -> Float[Tensor, "d1 d2"]:
        """exp(-t x) along each axis: what is left of a change of the weights after the segment."""
        return torch.exp(-self._trained)

    @property
    def response(self) -> Float[Tensor, "d1 d2"]:
        """(1 - exp(-t x)) / x along each axis, t where x is 0; zeros where no training example has a gradient."""
        values = self.eigenvalues.double()
        mean = values.mean()
        if not bool(mean > 0):
            return torch.zeros_like(values)
        return torch.where(values > 0, -torch.expm1(-self._trained) / values.clamp(min=1e-300), self.time / mean)

    def carried_back(self, gradients: Float[Tensor, "n d1 d2"]) -> Float[Tensor, "n d1 d2"]:
        """Return exp(-t H) G of n gradients, in their own axes."""
        rotated = self.bases.rotate(gradients) * self.remains.to(gradients)
        return product(product(rotated, self.bases.q_out.mT).mT, self.bases.q_in.mT).mT


@dataclass(frozen=True)
class SegmentPreconditioner:
    """What scores the stored factors of one segment for gradients of queries at the run's end, in place of H^-1."""

    segment: Segment
    later: Sequence[Segment]
    """Segments after it, in the order of the run."""

    def apply(self, gradients: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return vec(M_q) of n gradients vec(G_q), for whitened factors."""
        rotated = self._responding(gradients)
        scaled = rotated / self.segment.bases.scale
        return self.segment.bases.in_factor_axes(scaled).flatten(1)

    def inverse(self, gradients: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return F(H_l) exp(-t H) ... G of n gradients vec(G), in their own axes."""
        bases, rotated = self.segment.bases, self._responding(gradients)
        return product(product(rotated, bases.q_out.mT).mT, bases.q_in.mT).mT.flatten(1)

    @property
    def axis_sizes(self) -> Float[Tensor, "d1 d2"]:
        """How large whitened training gradients of the segment are along the axes in which they are stored."""
        return self.segment.bases.axis_sizes(self.segment.eigenvalues)

    @property
    def norm_weight(self) -> float:
        """sum of Lam F(Lam), over the sum of Lam s^2; 0 without training gradients."""
        values = self.segment.eigenvalues.double()
        if not bool(values.mean() > 0):
            return 0.0
        whitened = (values * self.segment.bases.scale.double().square()).sum()
        return float((values * self.segment.response).sum() / whitened)

    def _responding(self, gradients: Float[Tensor, "n D"]) -> Float[Tensor, "n d1 d2"]:
        carried = gradients.unflatten(1, self.segment.eigenvalues.shape)
        for segment in reversed(self.later):
            carried = segment.carried_back(carried)
        return self.segment.bases.rotate(carried) * self.segment.response.to(gradients)
