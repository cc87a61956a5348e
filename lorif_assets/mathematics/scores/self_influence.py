"""Self-influence: how much an example speaks for itself, g_i^T H^-1 g_i (Barshan et al. 2020, arXiv 2003.11630)."""

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.curvature.curvature import LayerPreconditioner
from lorif_assets.mathematics.curvature.ekfac import KfacBases
from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.matrix_products import product


def self_influence(
    factors: GradientFactors, preconditioner: LayerPreconditioner, bases: KfacBases | None
) -> Float[Tensor, " n"]:
    """Return one layer's share of the self-influence of n examples, never negative.

    Args:
        factors: of the examples' gradients [n, d1, d2], whitened where there are bases.
        preconditioner: of the layer.
        bases: those that the gradients are whitened in; None without whitening.
    """
    d1, d2 = factors.u.shape[1], factors.v.shape[1]
    shares = []
    for stored in factors.dense_blocks():
        gradients = stored if bases is None else unwhitened(stored.view(-1, d1, d2), bases).flatten(1)
        shares.append(torch.linalg.vecdot(preconditioner.apply(gradients).double(), stored.double()))
    # Only rounding makes it negative.
    return torch.cat(shares).clamp_(min=0.0)


def unwhitened(gradients: Float[Tensor, "n d1 d2"], bases: KfacBases) -> Float[Tensor, "n d1 d2"]:
    """Return G = Q_A (W / s) Q_B^T of n whitened gradients W."""
    return product(product(gradients / bases.scale, bases.q_out.mT).mT, bases.q_in.mT).mT


def relative_influence(scores: Float[Tensor, "Q N"], self_influences: Float[Tensor, " N"]) -> Float[Tensor, "Q N"]:
    """Return score / sqrt(self-influence): an example's score relative to its own size; 0 where that is 0."""
    return scores * torch.where(self_influences > 0, self_influences.rsqrt(), 0.0).to(scores)
