"""How well stored factors stand for the gradients they were made of."""

from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.factors.low_rank import GradientFactors


def reconstruction_error(gradients: Float[Tensor, "n d1 d2"], factors: GradientFactors) -> float:
    """Return ||G - u v^T||_F / ||G||_F over all n gradients; 0 where they are all zero."""
    g = gradients.double()
    difference = g.flatten(1) - factors.dense().to(g)
    norm = float(g.norm())
    return float(difference.norm()) / norm if norm else 0.0
