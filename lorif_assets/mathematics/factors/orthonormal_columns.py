"""Orthonormal columns of a batch of tall matrices without LAPACK, which would go through them one by one.

On a GPU by one kernel (gpu_kernels). Elsewhere, and where Triton cannot compile it, by products alone:
For X [d, w] with the Gram matrix A = X^T X, the columns of X A^(-1/2) are orthonormal and span the same space. A^(-1/2)
comes from scaled Newton-Schulz iterations, whose scales follow from a lower bound of the singular values (Chen and Chow
2014, "A stable scaling of Newton-Schulz for improving the sign function computation of a Hermitian matrix"), so that
nothing is measured on the way. A is computed and iterated in FP64: squaring halves the digits. The small matrices of batches
of other heights share the iterations, whose number of operations is then one batch's.
"""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.factors.device_kernels import kernels_of

# Singular values below these shares of the root of their squares' sum are not brought to one.
_SMALLEST_EVENED = 1e-4
_SMALLEST_FILLED = 1e-7
_SMALLEST_ORTHONORMAL = 0.05
_NEARLY_ONE = 0.999
# Below the rounding of FP32 beside the columns' size, above the root of FP64's beside its square.
_FILL = 2.0**-20


def evened_columns(batches: Sequence[Float[Tensor, "n d w"]]) -> list[Float[Tensor, "n d w"]]:
    """Return columns of the same spans, of about one length, and far from parallel but in directions of a small size.

    Enough to go on with: no more is asked of the columns than that products with them keep their digits.

    Args:
        batches: of matrices of any heights, and of one width; they may be written over.
    """
    even = list(batches)
    others = [at for at, x in enumerate(even) if not _by_kernel(x, _SMALLEST_EVENED)]
    if others:
        # One over the size of the smallest numbers has no room in FP32.
        sized = [_sized(even[at]) for at in others]
        roots = _inverse_roots([_gram(x.double()) for x in sized], _SMALLEST_EVENED, 0.5)
        for at, x, root in zip(others, sized, roots, strict=True):
            even[at] = x @ root.to(x.dtype)
    return even


def orthonormal_columns(
    batches: Sequence[Float[Tensor, "n d w"]], fills: Sequence[Float[Tensor, "d w"]]
) -> list[Float[Tensor, "n d w"]]:
    """Return orthonormal columns whose spans hold those of the given ones.

    Args:
        batches: of matrices of any heights and ranks, zero included, and of one width.
        fills: columns in general position, for the directions that the matrices of each batch lack.
    """
    found = [_filled(x, fill) for x, fill in zip(batches, fills, strict=True)]
    # Twice is enough: what rounding left of columns that were nearly parallel is small beside what they have become.
    others = [at for at, x in enumerate(found) if not (_by_kernel(x, 0.0) and _by_kernel(x, 0.0))]
    if others:
        filled = [_filled(batches[at].double(), fills[at]) for at in others]
        roots = _inverse_roots([_gram(x) for x in filled], _SMALLEST_FILLED, _NEARLY_ONE)
        # In FP64 the product too: small directions are multiplied by up to 1e7, and the rounding of the others with them.
        nearly = [(x @ root).to(batches[at].dtype) for at, x, root in zip(others, filled, roots, strict=True)]
        roots = _inverse_roots([_gram(x.double()) for x in nearly], _SMALLEST_ORTHONORMAL, _NEARLY_ONE)
        for at, x, root in zip(others, nearly, roots, strict=True):
            found[at] = x @ root.to(x.dtype)
    return found


def _by_kernel(x: Float[Tensor, "n d w"], smallest: float) -> bool:
    """Make columns orthonormal in place, and return whether the device has a kernel that does."""
    kernels = kernels_of(x.device)
    return kernels is not None and x.is_contiguous() and kernels.orthonormalise(x, smallest)


def _filled(x: Float[Tensor, "n d w"], fill: Float[Tensor, "d w"]) -> Float[Tensor, "n d w"]:
    """Return columns of about size one with a little of others in general position."""
    return _sized(x) + _FILL * fill.to(x.dtype)


def _sized(x: Float[Tensor, "n d w"]) -> Float[Tensor, "n d w"]:
    """Return matrices whose largest number is one."""
    size = torch.linalg.vector_norm(x, torch.inf, dim=(1, 2), keepdim=True)
    return x / torch.where(size > 0, size, 1.0)


def _gram(x: Float[Tensor, "n d w"]) -> Float[Tensor, "n w w"]:
    return x.mT @ x


def _inverse_roots(
    grams: Sequence[Float[Tensor, "n w w"]], smallest: float, reached: float
) -> Sequence[Float[Tensor, "n w w"]]:
    """Return A^(-1/2) where eigenvalues are at least the square of `smallest` times the trace; zero of a zero matrix."""
    gram = grams[0] if len(grams) == 1 else torch.cat(list(grams))
    trace = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    # The trace bounds the largest eigenvalue.
    trace = torch.where(trace > 0, trace, 1.0)
    a = gram / trace
    threehalves = 1.5 * torch.eye(gram.shape[1], dtype=a.dtype, device=a.device)
    root = (threehalves / 1.5) * trace.rsqrt()
    # A step multiplies by scale (3 I - scale^2 A) / 2; the scales are kept apart from the matrices, as one number.
    squared = 1.0
    for scale in _scales(smallest, reached):
        squared *= scale**2
        step = torch.add(threehalves, a, alpha=-0.5 * squared)
        root, a = root @ step, step @ a @ step
    roots: Sequence[Tensor] = (root * squared**0.5).split([len(each) for each in grams])
    return roots


@cache
def _scales(smallest: float, reached: float) -> tuple[float, ...]:
    """Return the scale of each iteration that brings singular values from `smallest` on to between `reached` and 1."""
    scales = []
    while smallest < reached:
        scale = (3 / (1 + smallest + smallest**2)) ** 0.5
        scales.append(scale)
        smallest = scale * smallest * (3 - (scale * smallest) ** 2) / 2
    # Two plain iterations square what is left of the error twice.
    return (*scales, 1.0, 1.0) if reached == _NEARLY_ONE else tuple(scales)
