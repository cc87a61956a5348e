"""What scores factors that are kept as signs: queries that know how large the numbers are of which only the signs are kept.

Along most axes whitened gradients are small. Their signs, all of one size, would speak as loudly as those of the large ones:

    G_i ~ D_in (sum over k of w_k p_k q_k^T) D_out,   p, q signs, D the sizes of the axes

so that the score of signs alone is <D_in M_q D_out, sum of w_k p_k q_k^T>. Nothing more is stored of an example, and a scan
reads and multiplies what it did before.
"""

from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.curvature.curvature import LayerPreconditioner


def for_signs(preconditioner: LayerPreconditioner, preconditioned: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
    """Return vec(D_in M D_out) of n preconditioned gradients vec(M); as they are where factors are not whitened."""
    sizes = preconditioner.axis_sizes
    return preconditioned if sizes is None else preconditioned * sizes.flatten().to(preconditioned)
