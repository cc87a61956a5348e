"""Dense gradients that are held at a time, by the settings or by the memory of the device that computes them."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from lorif_assets.config.sections import BatchSettings

_SHARE_OF_DEVICE = 16
"""What of a GPU's memory gradients have at a time: those of a batch are factorised all at once where it holds them."""


def gradient_room(batch: "BatchSettings", device: "torch.device") -> int:
    """Return the FP32 numbers of dense gradients that are held at a time: those of the settings, or what suits the device."""
    import torch

    if batch.gradient_mib is not None or device.type != "cuda":
        return batch.gradient_numbers
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(batch.gradient_numbers, memory // _SHARE_OF_DEVICE // torch.float32.itemsize)


def layer_groups(sizes: Mapping[str, int], room: int) -> Iterator[list[str]]:
    """Yield groups of layers, in order, whose sizes together are no more than the room; a larger layer is one by itself."""
    group: list[str] = []
    taken = 0
    for layer, size in sizes.items():
        if group and taken + size > room:
            yield group
            group, taken = [], 0
        group.append(layer)
        taken += size
    yield group
