"""K-FAC's curvature (Martens and Grosse 2015, arXiv 1503.05671): EK-FAC's, with the bases' own eigenvalues.

If a token's input and output gradient were independent, and tokens of one another, the curvature would be A x B, whose
eigenvalues in the K-FAC bases are a_i b_j: those of one token. The sums over examples are kept as for EK-FAC, but only
their number of examples is used.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.curvature.ekfac import EkfacCurvature


@dataclass(frozen=True)
class KfacCurvature(EkfacCurvature):
    """The Kronecker product of a layer's two covariances, to which the bases were fitted."""

    @property
    def eigenvalues(self) -> Float[Tensor, "d1 d2"]:
        """The products a_i b_j, in FP64."""
        return torch.outer(self.bases.a.double(), self.bases.b.double())
