"""Adam's second moments as a layer's curvature: scores in the geometry in which the model was trained.

Adam divides each step by the root of the second moments, so that what one example's gradient does to the weights is
D^-1 g with D = diag(sqrt(v) + eps), one number for each weight. Here D is seen along the axes of K-FAC's bases, in which
stored gradients are written: its diagonal there, which is what is best kept of it by one number for each axis.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.errors import LorifError
from lorif_assets.mathematics.curvature.ekfac import EkfacCurvature, KroneckerPreconditioner
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases


def along_axes(
    roots: Float[Tensor, "I O"],
    bases: KfacBases,
    p_in: Float[Tensor, "I d1"] | None,
    p_out: Float[Tensor, "O d2"] | None,
) -> Float[Tensor, "d1 d2"]:
    """Return the diagonal of diag(roots) in the axes of a layer's bases, FP64: sum over weights of a² roots b².

    a and b are the axes in the layer's own sides, P Q; with a projection they are no unit vectors, and are made some.

    Args:
        roots: of the second moments, input side first.
        bases: of the layer.
        p_in: projection of the inputs; None: none.
        p_out: projection of the outputs; None: none.
    """
    sides = []
    for p, q in ((p_in, bases.q_in), (p_out, bases.q_out)):
        axes = q.double() if p is None else p.double().to(q.device) @ q.double()
        squares = axes.square()
        sides.append(squares / squares.sum(0, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny))
    return sides[0].mT @ roots.double().to(bases.q_in.device) @ sides[1]


@dataclass(frozen=True)
class AdamPreconditioner(KroneckerPreconditioner):
    """The damped inverse of D along the axes; `energies` are the mean squares of the training gradients along them."""

    energies: Float[Tensor, "d1 d2"] | None = None

    @property
    def axis_sizes(self) -> Float[Tensor, "d1 d2"]:
        """How large whitened training gradients are along the axes in which they are stored, by `energies`."""
        return self.bases.axis_sizes(self.eigenvalues if self.energies is None else self.energies)

    @property
    def norm_weight(self) -> float:
        """sum of Lam / (D + m mean D), over the sum of Lam s^2; 0 without training gradients."""
        if self.energies is None or not bool(self.energies.sum() > 0):
            return 0.0
        divisor = self.eigenvalues.double() + self.absolute_damping
        whitened = (self.energies * self.bases.scale.double().square()).sum()
        return float((self.energies / divisor).sum() / whitened)


@dataclass(frozen=True)
class AdamCurvature(EkfacCurvature):
    """Adam's preconditioner in place of EK-FAC's eigenvalues. The sums over examples say how large gradients are."""

    @property
    def eigenvalues(self) -> Float[Tensor, "d1 d2"]:
        """D along the axes, in FP64.

        Raises:
            LorifError: the bases were fitted without the optimiser's state.
        """
        if self.bases.optimizer is None:
            raise LorifError(
                "the bases of a layer were fitted without the optimiser's state, which this curvature is made of: fit them to "
                "a checkpoint that has its `optimizer.pt`, or take another `recipe.curvature`"
            )
        return self.bases.optimizer.double()

    def preconditioner(self) -> AdamPreconditioner:
        """Return the damped inverse."""
        return AdamPreconditioner(self.bases, self.eigenvalues, self.damping, self.sums.eigenvalues)
