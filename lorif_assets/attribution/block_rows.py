"""How many examples a block of streamed factors has where the settings do not say."""

from typing import TYPE_CHECKING

from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.free_memory import free_memory

if TYPE_CHECKING:
    import torch

# Of the free memory: a block in use, the one that is read meanwhile, and the products of either leave room for a model.
_SHARE = 32
# Below, what a block takes to set up is not repaid; above, nothing is gained (measured on a CPU and a GPU).
FEWEST_ROWS, MOST_ROWS = 16, 16_384


def block_rows(numbers: int, device: "torch.device") -> int:
    """Return how many examples' factors fill a 32nd of a device's free memory, or the machine's, once they are decoded.

    A power of two from 16 to 16,384, so that small changes of the free memory change nothing.

    Args:
        numbers: of one example's factors, decoded to FP32.
        device: where the blocks go.
    """
    fitting = free_memory(DeviceGroup((device,))) // (_SHARE * 4 * max(numbers, 1))
    return min(max(1 << (max(fitting, 1).bit_length() - 1), FEWEST_ROWS), MOST_ROWS)
