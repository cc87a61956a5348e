"""How many examples a block of streamed factors has where the settings do not say."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.free_memory import free_memory

if TYPE_CHECKING:
    import torch

# Of the free memory: a block in use, the one that is read meanwhile, and the products of either leave room for a model.
_SHARE = 32
# Below, what a block takes to set up is not repaid; above, nothing is gained (measured on a CPU and a GPU).
FEWEST_ROWS, MOST_ROWS = 16, 16_384
# Signs that take the memory of one number in FP32.
_SIGNS_PER_NUMBER = 32


def block_rows(numbers: int, device: "torch.device") -> int:
    """Return how many examples' factors fill a 32nd of a device's free memory, or the machine's, once they are decoded.

    A power of two from 16 to 16,384, so that small changes of the free memory change nothing.

    Args:
        numbers: of one example's factors, decoded to FP32.
        device: where the blocks go.
    """
    fitting = free_memory(DeviceGroup((device,))) // (_SHARE * 4 * max(numbers, 1))
    return min(max(1 << (max(fitting, 1).bit_length() - 1), FEWEST_ROWS), MOST_ROWS)


def scanned_numbers(numbers: Mapping[str, int], codec: str, device: "torch.device") -> int:
    """Return what one example's factors take in memory while they are scored, in numbers of FP32.

    On a CPU signs stay as they are stored, and at most one layer of a block is decoded at a time.

    Args:
        numbers: of one example's factors in each layer, decoded.
        codec: of the stored factors.
        device: where they are scored.
    """
    if codec != "sign" or device.type != "cpu":
        return sum(numbers.values())
    return sum(numbers.values()) // _SIGNS_PER_NUMBER + max(numbers.values(), default=0)
