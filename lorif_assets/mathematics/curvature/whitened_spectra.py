"""Leading singular values of many gradients at once, which say what each further component of a factor would hold.

On a CPU from the eigenvalues of the smallest Gram matrix at hand: of the narrower side, or of the tokens that a gradient is a
sum over, where these are fewer. Wide gradients of which few values are asked go through a randomised range finder first. On an
accelerator by subspace iteration, without LAPACK.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics import accelerators
from lorif_assets.mathematics.factors.low_rank import power_of_two
from lorif_assets.mathematics.factors.subspace_iteration import MatrixBatch, leading_triples
from lorif_assets.mathematics.factors.token_gradients import TokenGradients
from lorif_assets.mathematics.matrix_products import product

_SKETCH_EXTRA = 8
_POWER_STEPS = 2
_SEED = 20_603
# LAPACK on small matrices takes the time of this many multiplications where the products around it take one: with fewer
# tokens than this share of the narrower side, its eigenproblem and QR are cheaper than the gradient's (measured).
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
    scaled, size = _scaled(gradients)
    if k + _SKETCH_EXTRA < min(d1, d2):
        scaled = _range_basis(scaled, k + _SKETCH_EXTRA).mT @ scaled
    return _squares(scaled if scaled.shape[1] <= scaled.shape[2] else scaled.mT, k) * size


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
    (x, x_size), (dy, dy_size) = _scaled(tokens.x), _scaled(tokens.dy)
    # Each column of R is as exact as its token, however much larger another token is.
    rows: Tensor = torch.linalg.qr(x.mT, mode="r").R
    found = _squares(product(rows, dy), k) * x_size * dy_size
    missing = min(k, x.shape[2], dy.shape[2]) - found.shape[1]
    return torch.nn.functional.pad(found, (0, missing)) if missing > 0 else found


def _squares(wide: Float[Tensor, "n a b"], k: int) -> Float[Tensor, "n m"]:
    """Return the leading min(k, a) squared singular values of matrices with fewer rows than columns."""
    values: Tensor = torch.linalg.eigvalsh(product(wide, wide.mT))
    return values.flip(1)[:, :k].clamp(min=0.0).double()


def _scaled(x: Float[Tensor, "n a b"]) -> tuple[Float[Tensor, "n a b"], Float[Tensor, "n 1"]]:
    """Return matrices of numbers of about one, and the squares of what they were divided by; zeros and NaN if not finite."""
    size = power_of_two(x, 120)
    is_finite = torch.linalg.vector_norm(x, torch.inf, dim=(1, 2), keepdim=True).isfinite()
    scaled = x / size
    if not bool(is_finite.all()):
        scaled = torch.where(is_finite, scaled, 0.0)
    squares = torch.where(is_finite, size.double().square(), torch.nan)
    return scaled, squares[:, 0]


def _range_basis(gradients: Float[Tensor, "n d1 d2"], width: int) -> Float[Tensor, "n d1 w"]:
    """Return orthonormal columns whose span holds nearly all of the leading left singular vectors."""
    n, _, d2 = gradients.shape
    generator = torch.Generator().manual_seed(_SEED)
    sketch = torch.randn(d2, width, generator=generator).to(gradients).expand(n, d2, width)
    basis: Tensor = torch.linalg.qr(gradients @ sketch).Q
    for _ in range(_POWER_STEPS):
        basis = torch.linalg.qr(gradients @ torch.linalg.qr(gradients.mT @ basis).Q).Q
    return basis
