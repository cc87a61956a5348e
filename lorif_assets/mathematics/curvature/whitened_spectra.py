"""Leading singular values of many gradients at once, which say what each further component of a factor would hold.

On a CPU from the eigenvalues of the smallest Gram matrix at hand: of the narrower side, or of the tokens that a gradient is a
sum over, where these are fewer. Wide gradients of which few values are asked go through a randomised range finder first. On an
accelerator by subspace iteration, without LAPACK.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lorif_assets.mathematics import accelerators
from lorif_assets.mathematics.factors.low_rank import largest_magnitude, power_of_two
from lorif_assets.mathematics.factors.subspace_iteration import MatrixBatch, leading_triples
from lorif_assets.mathematics.factors.token_gradients import TokenGradients
from lorif_assets.mathematics.lapack_batches import eigenvalues, orthonormal, triangular
from lorif_assets.mathematics.matrix_products import product

_SKETCH_EXTRA = 8
_POWER_STEPS = 2
_SEED = 20_603
# With fewer tokens than this share of the narrower side, their QR and eigenvalues take less time than the gradient's own
# eigenvalues (measured).
_TOKENS_SHARE = 0.75


def squared_singular_values(gradients: Float[Tensor, "n d1 d2"], k: int) -> Float[Tensor, "n m"]:
    """Return the leading m = min(k, d1, d2) squared singular values of each gradient, largest first, in FP64.

    By a randomised range finder with two power steps where k is well below the widths, which errs slightly low. Of a gradient
    that is not finite they are NaN.
    """
    if accelerators.is_accelerator(gradients.device):
        size = gradients.abs().amax(dim=(1, 2), keepdim=True)
        size = torch.where(size > 0, size, 1.0)
        (found,) = leading_triples([MatrixBatch.of(gradients / size)], k)
        return found.squares * size[:, 0].double().square()
    _, d1, d2 = gradients.shape
    if k + _SKETCH_EXTRA < min(d1, d2):
        return _squares(_range_basis(gradients, k + _SKETCH_EXTRA).mT @ gradients, k)
    return _squares(gradients if d1 <= d2 else gradients.mT, k)


def is_cheaper_from_tokens(device: torch.device, tokens: int, d1: int, d2: int, k: int) -> bool:
    """Return whether `squared_singular_values_from_tokens` is the cheaper way to the same values.

    Where values are approximate, it is not: they would be others.
    """
    is_exact = min(tokens, d1, d2) <= k + _SKETCH_EXTRA
    return is_exact and not accelerators.is_accelerator(device) and tokens <= _TOKENS_SHARE * min(d1, d2)


def squared_singular_values_from_tokens(tokens: TokenGradients, k: int) -> Float[Tensor, "n m"]:
    """Return the same of gradients X^T dY of at most min(d1, d2) tokens each, without forming them.

    With X^T = Q R, they are those of R dY, which has as many rows as there are tokens.
    """
    # Each column of R is as exact as its token, however much larger another token is.
    found = _squares(product(triangular(tokens.x.mT), tokens.dy), k)
    missing = min(k, tokens.x.shape[2], tokens.dy.shape[2]) - found.shape[1]
    return functional.pad(found, (0, missing)) if missing > 0 else found


def _squares(wide: Float[Tensor, "n a b"], k: int) -> Float[Tensor, "n m"]:
    """Return the leading min(k, a) squared singular values of matrices with fewer rows than columns."""
    # Squares of numbers far from one have no room in FP32; and LAPACK fails on what is not finite.
    size, is_finite = power_of_two(wide, 120), largest_magnitude(wide).isfinite()
    scaled = torch.where(is_finite, wide / size, 0.0)
    gram = product(scaled, scaled.mT)
    squares = torch.where(is_finite, size.double().square(), torch.nan)
    return eigenvalues(gram).flip(1)[:, :k].clamp(min=0.0) * squares[:, 0]


def _range_basis(gradients: Float[Tensor, "n d1 d2"], width: int) -> Float[Tensor, "n d1 w"]:
    """Return orthonormal columns whose span holds nearly all of the leading left singular vectors."""
    n, _, d2 = gradients.shape
    generator = torch.Generator().manual_seed(_SEED)
    sketch = torch.randn(d2, width, generator=generator).to(gradients).expand(n, d2, width)
    basis = orthonormal(gradients @ sketch)
    for _ in range(_POWER_STEPS):
        basis = orthonormal(gradients @ orthonormal(gradients.mT @ basis))
    return basis
