"""Checkpoints whose weights are quantised: recognised by their configuration, and refused where they cannot run."""

import json
from pathlib import Path
from typing import Any

from lorif_assets.errors import CheckpointError
from lorif_assets.models.devices import DeviceGroup


def quantization(checkpoint: Path) -> dict[str, Any] | None:
    """Return how the weights in a folder are quantised, as transformers notes it, or None where they are not."""
    file = checkpoint / "config.json"
    try:
        config = json.loads(file.read_text()) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        # Others say what is wrong with it.
        return None
    found = config.get("quantization_config") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else None


def refuse_unsupported_quantization(checkpoint: Path, devices: DeviceGroup | None = None) -> None:
    """Refuse quantised weights whose library is missing, or that a device cannot multiply; nothing is loaded.

    Args:
        checkpoint: its folder.
        devices: where it is to run, if that is known yet.

    Raises:
        CheckpointError: with the method and what transformers says about it.
    """
    _quantizer(checkpoint, devices)


def stays_quantised(checkpoint: Path, devices: DeviceGroup) -> bool:
    """Return whether the weights in a folder are quantised in memory too; where a device lacks FP8, say, they become BF16.

    Raises:
        CheckpointError: as `refuse_unsupported_quantization`.
    """
    quantizer = _quantizer(checkpoint, devices)
    return quantizer is not None and not getattr(quantizer.quantization_config, "dequantize", False)


def _quantizer(checkpoint: Path, devices: DeviceGroup | None) -> Any:
    """Return transformers' quantizer of the weights in a folder, or None where they are not quantised."""
    config = quantization(checkpoint)
    if config is None:
        return None
    from transformers.quantizers import AutoHfQuantizer

    method = config.get("quant_method", "an unnamed method")
    try:
        quantizer = AutoHfQuantizer.from_config(config, pre_quantized=True)
        quantizer.validate_environment(device_map=device_map_of(devices) if devices else None)
    except (ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint} has weights quantised by {method}, which cannot run here: {error}. Install what is missing, choose "
            "other devices, or save the model dequantised: `model.dequantize().save_pretrained(...)`"
        ) from error
    return quantizer


def device_map_of(devices: DeviceGroup) -> dict[str, str]:
    """Return the device map of a model that is whole on one device: quantised weights are put there, not moved."""
    return {"": str(devices.first)}
