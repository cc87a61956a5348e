"""LAPACK on a CPU for batches of small matrices: one thread for each matrix, all threads for the batch.

torch hands the matrices of a batch to LAPACK one by one, and LAPACK's own threads cost more than they save on matrices of a
few hundred columns: beside other work, two threads took up to 360 times the CPU time of one for the QR of 192 x 48.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from jaxtyping import Float
from torch import Tensor

_SMALL = 1_024
"""Rows and columns up to which a matrix of several is small."""
_SMALL_ALONE = 256
"""The same for a matrix that comes alone."""


def eigenvectors(x: Float[Tensor, "n d d"]) -> Float[Tensor, "n d d"]:
    """Return the eigenvectors (columns) of symmetric matrices, the smallest eigenvalue's first."""
    return _by_matrix(lambda some: torch.linalg.eigh(some).eigenvectors, x)


def eigenvalues(x: Float[Tensor, "n d d"]) -> Float[Tensor, "n d"]:
    """Return the eigenvalues of symmetric matrices, the smallest first."""
    return _by_matrix(torch.linalg.eigvalsh, x)


def orthonormal(x: Float[Tensor, "n d c"]) -> Float[Tensor, "n d c"]:
    """Return orthonormal columns whose spans hold those of the given ones, of which there are at most d."""
    if x.shape[-1] == 1:
        # The QR of one column is its normalisation; a zero column gives any unit vector, as QR does.
        norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
        return torch.where(norm > 0, x / norm, x.shape[1] ** -0.5)
    return _by_matrix(lambda some: torch.linalg.qr(some).Q, x)


def triangular(x: Float[Tensor, "n a b"]) -> Float[Tensor, "n m b"]:
    """Return the m = min(a, b) rows of each matrix's R in X = Q R."""
    return _by_matrix(lambda some: torch.linalg.qr(some, mode="r").R, x)


def _by_matrix(work: Callable[[Tensor], Tensor], matrices: Float[Tensor, "n a b"]) -> Tensor:
    """Return what some work makes of a batch; small matrices on a CPU are worked on in slices of the batch, side by side."""
    threads, n = torch.get_num_threads(), len(matrices)
    is_small = max(matrices.shape[1:]) <= (_SMALL if n > 1 else _SMALL_ALONE)
    if matrices.device.type != "cpu" or not is_small or threads == 1:
        return work(matrices)
    torch.set_num_threads(1)
    try:
        if n < 2:
            return work(matrices)
        slices = matrices.split(-(-n // threads))
        with ThreadPoolExecutor(len(slices)) as pool:
            return torch.cat(list(pool.map(work, slices)))
    finally:
        torch.set_num_threads(threads)
