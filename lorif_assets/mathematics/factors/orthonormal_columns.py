"""Orthonormal columns of a batch of tall matrices by products alone, where LAPACK would go through them one by one.

For X [d, w] with the Gram matrix A = X^T X, the columns of X A^(-1/2) are orthonormal and span the same space. A^(-1/2)
comes from scaled Newton-Schulz iterations, whose scales follow from a lower bound of the singular values (Chen and Chow
2014, "A stable scaling of Newton-Schulz for improving the sign function computation of a Hermitian matrix"), so that
nothing is measured on the way. A is computed and iterated in FP64: squaring halves the digits.
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

# Singular values below these shares of the root of their squares' sum are not brought to one.
_SMALLEST_EVENED = 1e-4
_SMALLEST_FILLED = 1e-7
_SMALLEST_ORTHONORMAL = 0.05
# Below the rounding of FP32 beside the columns' size, above the root of FP64's beside its square.
_FILL = 2.0**-20


def evened_columns(x: Float[Tensor, "n d w"]) -> Float[Tensor, "n d w"]:
    """Return columns of the same span that are orthonormal but for directions of a size below 1e-4 of the whole."""
    gram = _gram(x.double())
    return x @ _inverse_root(gram, _SMALLEST_EVENED).to(x.dtype)


def orthonormal_columns(x: Float[Tensor, "n d w"], fill: Float[Tensor, "d w"]) -> Float[Tensor, "n d w"]:
    """Return orthonormal columns whose span holds that of x.

    Args:
        x: of any rank, zero included.
        fill: columns in general position, for the directions that x lacks.
    """
    norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    filled = (x / torch.where(norm > 0, norm, 1.0)).double() + _FILL * fill.double()
    # In FP64 the product too: small directions are multiplied by up to 1e7, and the rounding of the others with them.
    nearly = (filled @ _inverse_root(_gram(filled), _SMALLEST_FILLED)).to(x.dtype)
    return nearly @ _inverse_root(_gram(nearly.double()), _SMALLEST_ORTHONORMAL).to(x.dtype)


def _gram(x: Float[Tensor, "n d w"]) -> Float[Tensor, "n w w"]:
    return x.mT @ x


def _inverse_root(gram: Float[Tensor, "n w w"], smallest: float) -> Float[Tensor, "n w w"]:
    """Return A^(-1/2) where eigenvalues are at least the square of `smallest` times the trace; zero of a zero matrix."""
    width = gram.shape[1]
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    # The trace bounds the largest eigenvalue.
    trace = torch.where(trace > 0, trace, 1.0)
    a = gram / trace
    eye = torch.eye(width, dtype=a.dtype, device=a.device)
    root = eye * trace.rsqrt()
    for scale in _scales(smallest):
        step = torch.add(eye * (1.5 * scale), a, alpha=-0.5 * scale**3)
        root, a = root @ step, step @ a @ step
    return root


@cache
def _scales(smallest: float) -> tuple[float, ...]:
    """Return the scale of each iteration, for singular values from `smallest` to 1."""
    scales = []
    while smallest < 0.999:
        scale = (3 / (1 + smallest + smallest**2)) ** 0.5
        scales.append(scale)
        smallest = scale * smallest * (3 - (scale * smallest) ** 2) / 2
    # Two plain iterations square what is left of the error twice.
    return (*scales, 1.0, 1.0)
