"""Eigenpairs of a batch of small symmetric matrices by Jacobi's rotations, all matrices and half of each one's pairs at once.

On a GPU as one kernel (gpu_kernels). Elsewhere, and where Triton cannot compile it, as operations over the batch: a step
rotates w / 2 disjoint pairs of axes so that their entries off the diagonal vanish, and exchanges the pairs after the scheme
of a round robin tournament, so that w - 1 steps, a sweep, meet every pair once (Brent and Luk 1985, "The solution of
singular-value and symmetric eigenvalue problems on multiprocessor arrays").
"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from lorif_assets.mathematics.factors.device_kernels import kernels_of

# Convergence is quadratic: these many sweeps leave less than 1e-9 of the norm off the diagonal (measured up to 128 wide).
_SWEEPS = 6
_SWEEPS_OF_WIDE = 8
_NARROW = 32

_Eigenpairs = tuple[Float[Tensor, "n w"], Float[Tensor, "n w w"]]


def jacobi_eigenpairs(a: Float[Tensor, "n w w"]) -> _Eigenpairs:
    """Return eigenvalues, largest first, and eigenvectors (columns) of positive semi-definite matrices."""
    given = a.shape[1]
    if given == 1:
        return a[:, 0], torch.ones_like(a)
    if given % 2:
        # An axis that no rotation touches, and that comes last.
        a = functional.pad(a, (0, 1, 0, 1))
    kernels = kernels_of(a.device)
    values, vectors = kernels.orthogonalised(a) if kernels else _rotated(a)
    values[:, given:] = -torch.inf
    values, order = values.sort(dim=1, descending=True)
    vectors = vectors.gather(2, order.unsqueeze(1).expand_as(vectors))
    return values[:, :given], vectors[:, :given, :given]


def _rotated(a: Float[Tensor, "n w w"]) -> _Eigenpairs:
    """Return eigenvalues and eigenvectors of matrices of an even width, each where its axis was."""
    n, width, _ = a.shape
    half, places = width // 2, _places(width, a.device)
    halves, shifts = _sines(a.device, a.dtype)
    vectors = torch.eye(width, dtype=a.dtype, device=a.device).expand(n, width, width)
    rotations = torch.zeros(n, width * width, dtype=a.dtype, device=a.device)
    for _ in range((_SWEEPS if width <= _NARROW else _SWEEPS_OF_WIDE) * (width - 1)):
        diagonal = a.diagonal(dim1=1, dim2=2)
        off = a[:, :half, half:].diagonal(dim1=1, dim2=2)
        # Where the pair is equal and nothing is off the diagonal, 0 / 0 stands for no rotation.
        twice = (2 * off / (diagonal[:, :half] - diagonal[:, half:])).atan().nan_to_num(0.0)
        # cos, -sin, sin and cos of the angle, all as sines.
        entries = torch.addcmul(shifts, twice.unsqueeze(1), halves).sin()
        rotations.index_copy_(1, places, entries.flatten(1))
        turn = rotations.view(n, width, width)
        a, vectors = turn.mT @ a @ turn, vectors @ turn
    return a.diagonal(dim1=1, dim2=2).clone(), vectors


@cache
def _places(width: int, device: torch.device) -> Tensor:
    """Return where a rotation's numbers stand in the matrix that rotates pairs (i, i + w/2) and then exchanges them."""
    half = width // 2
    ring = [*range(1, half), *range(width - 1, half - 1, -1)]
    goes_to = {0: 0} | dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    blocks = [(0, 0), (0, half), (half, 0), (half, half)]
    places = [(i + row) * width + goes_to[i + column] for row, column in blocks for i in range(half)]
    return torch.tensor(places, device=device)


@cache
def _sines(device: torch.device, dtype: torch.dtype) -> tuple[Float[Tensor, "4 1"], Float[Tensor, "4 1"]]:
    """Return what twice the angle is multiplied by and shifted by, so that the sines are cos, -sin, sin and cos."""
    quarter = torch.pi / 2
    halves, shifts = [[0.5], [-0.5], [0.5], [0.5]], [[quarter], [0.0], [0.0], [quarter]]
    return torch.tensor(halves, device=device, dtype=dtype), torch.tensor(shifts, device=device, dtype=dtype)
