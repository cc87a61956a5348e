"""Which devices have kernels for what subspace iteration does to many small matrices, and what stands in for them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DeviceKernels:
    """Kernels of a device, each one launch for a whole batch."""

    orthonormalise: Callable[[Float[Tensor, "n d w"], float], bool]
    """Makes the columns of contiguous matrices orthonormal in place, but for what is left of one below this share.

    False: they are too large for it, and as they were."""
    orthogonalised: Callable[[Float[Tensor, "n w w"]], tuple[Float[Tensor, "n w"], Float[Tensor, "n w w"]]]
    """Returns eigenvalues and eigenvectors of positive semi-definite matrices of an even width, in no order."""


@cache
def kernels_of(device: torch.device) -> DeviceKernels | None:
    """Return the kernels of a device, after a trial, or None where there are none.

    Raises:
        OutOfMemoryError: torch's; with less in memory, another trial says more.
    """
    if device.type == "meta":
        # It stands for a GPU wherever costs are counted; a launch of a kernel is too little to count.
        return DeviceKernels(lambda _x, _smallest: True, lambda a: (a.new_empty(a.shape[:2]), torch.empty_like(a)))
    if device.type != "cuda":
        return None
    try:
        from lorif_assets.mathematics.factors.gpu_kernels import orthogonalised, orthonormalise

        trial = torch.eye(2, dtype=torch.float64, device=device).unsqueeze(0)
        orthonormalise(trial, 0.0)
        orthogonalised(trial)
    except torch.OutOfMemoryError:
        raise
    # Triton has no error of its own for a compiler or a driver that it lacks.
    except Exception as error:
        _LOG.warning(
            f"small matrices go through some thousand single operations on {device}, which takes several times as long as "
            f"kernels: Triton cannot compile them ({error}). It needs a C compiler, gcc for instance"
        )
        return None
    return DeviceKernels(orthonormalise, orthogonalised)
