"""Self-influence: how much an example speaks for itself, g_i^T H^-1 g_i (Barshan et al. 2020, arXiv 2003.11630)."""

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.curvature.curvature import LayerPreconditioner
from lorif_assets.mathematics.curvature.ekfac import KroneckerPreconditioner
from lorif_assets.mathematics.factors.low_rank import GradientFactors


def self_influence(factors: GradientFactors, preconditioner: LayerPreconditioner) -> Float[Tensor, " n"]:
    """Return one layer's share of the self-influence of n examples in FP64, never negative.

    Args:
        factors: of the examples' gradients [n, d1, d2]; whitened in its bases where the preconditioner has some.
        preconditioner: of the layer.
    """
    shares = [_quadratic_form(stored, preconditioner) for stored in factors.dense_blocks()]
    # Only rounding makes it negative.
    return torch.cat(shares).clamp_(min=0.0)


def _quadratic_form(stored: Float[Tensor, "n D"], preconditioner: LayerPreconditioner) -> Float[Tensor, " n"]:
    if isinstance(preconditioner, KroneckerPreconditioner):
        return preconditioner.whitened_form(stored)
    form: Tensor = torch.linalg.vecdot(preconditioner.apply(stored).double(), stored.double())
    return form


def relative_influence(scores: Float[Tensor, "Q N"], self_influences: Float[Tensor, " N"]) -> Float[Tensor, "Q N"]:
    """Return score / sqrt(self-influence): an example's score relative to its own size; 0 where that is 0."""
    return scores * torch.where(self_influences > 0, self_influences.rsqrt(), 0.0).to(scores)
