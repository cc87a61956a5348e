"""Which layers of a checkpoint go to which device of a group, where one device does not hold all."""

from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.errors import CheckpointError
from lorif_assets.models.devices import DeviceGroup

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_STEPS = 20
_FULLEST = 0.9
"""Of a device's free memory; the rest is for what the backward pass needs."""


def spread_over(skeleton: "PreTrainedModel", devices: DeviceGroup, checkpoint: Path) -> dict[str, str]:
    """Return the device of each part of a model, in accelerate's form; blocks with residuals and tied weights stay whole.

    All devices but the first are filled to the same share of their free memory, the smallest that suffices, and the first
    to that share's square: little where there is room, as gradients, factors and queries go there.

    Args:
        skeleton: the model in the type it is loaded in, without memory for its weights.
        devices: the devices to spread it over.
        checkpoint: its folder, for messages.

    Raises:
        CheckpointError: the devices' memory does not hold the weights (nothing is kept in the CPU's memory or on disk), or
            the model's class does not say what must stay whole.
    """
    from accelerate import infer_auto_device_map

    if not skeleton._no_split_modules:
        raise CheckpointError(
            f"{checkpoint} is a {type(skeleton).__name__}, whose class does not say which of its modules must lie on one "
            "device (`_no_split_modules`), so it cannot be spread; set `devices.per_checkpoint = 1`"
        )
    free = [free_bytes(device) for device in devices.devices]
    for step in range(1, _STEPS + 1):
        filled = _FULLEST * step / _STEPS
        budgets = {at: int(filled * (filled if at == 0 else 1) * size) for at, size in enumerate(free)}
        found = infer_auto_device_map(
            skeleton,
            max_memory=budgets,
            no_split_module_classes=sorted(skeleton._no_split_modules),
            # Silences a warning about what goes to the disk; nothing does in the end.
            offload_buffers=True,
        )
        # Batches start on the first device: a map that leaves it out has no hook that would take them elsewhere.
        if "disk" not in found.values() and 0 in found.values():
            return {part: str(devices.devices[at]) for part, at in found.items()}
    sizes = ", ".join(f"{size / 2**30:.1f} of {device}" for device, size in zip(devices.devices, free, strict=True))
    raise CheckpointError(
        f"{checkpoint} has {skeleton.get_memory_footprint() / 2**30:.1f} GiB of weights, for which the free GiB {sizes} do not "
        "suffice: each block must lie on one device, and up to a fifth of the memory is left for gradients. Raise "
        '`devices.per_checkpoint`, or set `recipe.model_dtype = "bfloat16"`'
    )


def free_bytes(device: "torch.device") -> int:
    """Return a CUDA device's free memory in bytes, memory that this process holds unused included."""
    import torch

    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + cached
