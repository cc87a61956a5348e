"""Checkpoints whose weights are quantised: refused where they cannot run, and loaded so that gradients go through them.

Libraries multiply packed weights in kernels, most of which have no backward pass. What bitsandbytes and torchao quantise
stays as it is, with kernels that have one; all else is dequantised as it is loaded.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorif_assets.errors import CheckpointError
from lorif_assets.models.devices import DeviceGroup

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

# gptqmodel reads both; its plain layers, alone of all, can be built on every device.
_UNPACKED = {"gptq": "torch", "awq": "torch_awq"}
_FOLLOWED = frozenset({"bitsandbytes", "torchao"})
"""Methods whose packed layers are linear ones of torch, and let gradients through."""


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
    """Refuse quantised weights whose library is missing, that a device cannot multiply, or that let no gradient through.

    Nothing is loaded.

    Args:
        checkpoint: its folder.
        devices: where it is to run, if that is known yet.

    Raises:
        CheckpointError: with the method and what transformers says about it.
    """
    _quantizer(checkpoint, devices)


def stays_quantised(checkpoint: Path, devices: DeviceGroup) -> bool:
    """Return whether the weights in a folder are quantised in memory too.

    Raises:
        CheckpointError: as `refuse_unsupported_quantization`.
    """
    quantizer = _quantizer(checkpoint, devices)
    return quantizer is not None and not _is_dequantised(quantizer.quantization_config)


def for_gradients(config: "PreTrainedConfig") -> "PreTrainedConfig":
    """Return the configuration of a model, changed so that it is loaded with weights that gradients go through."""
    quantised = getattr(config, "quantization_config", None)
    if isinstance(quantised, dict):
        config.quantization_config = _for_gradients(quantised)
    return config


def with_gradients(model: "PreTrainedModel") -> "PreTrainedModel":
    """Return a model that was just loaded, with layers that let gradients through: linear ones in place of packed ones."""
    for path, module in list(model.named_modules()):
        if hasattr(module, "qweight") and hasattr(module, "in_features"):
            model.set_submodule(path, _linear(module, model.dtype))
        elif hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes packs weights anew in a pass without gradients; what multiplies them then has no backward pass.
            module.support_avx512bf16_for_cpu = False
    for module, name, weight in list(_quantised_parameters(model)):
        # Products with inputs that are rounded too have none either.
        if getattr(weight, "act_quant_kwargs", None) is not None:
            setattr(module, name, _dense(weight, model.dtype))
    return model


def dequantised(model: "PreTrainedModel", folder: Path) -> "PreTrainedModel":
    """Return a model with dense weights, to which an adapter's can be added; one that has them already, as it is.

    Raises:
        CheckpointError: the library that quantised it cannot.
    """
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is None:
        return model
    config = quantizer.quantization_config
    for module, name, weight in list(_quantised_parameters(model)):
        setattr(module, name, _dense(weight, model.dtype))
    if not _is_dequantised(config) and config.quant_method != "torchao":
        try:
            return quantizer.dequantize(model, dtype=model.dtype)
        except NotImplementedError as error:
            raise CheckpointError(
                f"the base model {folder} of an adapter is quantised, and {config.quant_method} cannot dequantise it: set "
                "`checkpoints.base_model` to the model that it was quantised from"
            ) from error
    quantizer.remove_quantization_config(model)
    return model


def _for_gradients(quantised: dict[str, Any]) -> dict[str, Any]:
    method = quantised.get("quant_method")
    if method in _UNPACKED:
        return {**quantised, "backend": _UNPACKED[method]}
    return {**quantised, "dequantize": True} if _can_dequantise(quantised) else quantised


def _can_dequantise(quantised: dict[str, Any]) -> bool:
    from transformers.quantizers.auto import AutoQuantizationConfig

    return hasattr(AutoQuantizationConfig.from_dict(dict(quantised)), "dequantize")


def _is_dequantised(config: Any) -> bool:
    return getattr(config, "dequantize", False) or getattr(config, "quant_method", None) in _UNPACKED


def _quantizer(checkpoint: Path, devices: DeviceGroup | None) -> Any:
    """Return transformers' quantizer of the weights in a folder, or None where they are not quantised."""
    config = quantization(checkpoint)
    if config is None:
        return None
    from transformers.quantizers import AutoHfQuantizer

    method = config.get("quant_method", "an unnamed method")
    try:
        quantizer = AutoHfQuantizer.from_config(_for_gradients(config), pre_quantized=True)
        quantizer.validate_environment(device_map=device_map_of(devices) if devices else None)
    except (AttributeError, ImportError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint} has weights quantised by {method}, which cannot run here: {error}. Install what is missing, choose "
            "other devices, or save the model dequantised: `model.dequantize().save_pretrained(...)`"
        ) from error
    if _is_dequantised(quantizer.quantization_config):
        return quantizer
    if quantizer.quantization_config.quant_method not in _FOLLOWED:
        raise CheckpointError(
            f"{checkpoint} has weights quantised by {method}, whose layers are not such as gradients are collected in. Name "
            "the model that it was quantised from, or save this one dequantised"
        )
    if not quantizer.is_trainable:
        raise CheckpointError(
            f"{checkpoint} has weights quantised by {method}, which are made for inference: no gradient goes through them. "
            "Name the model that it was quantised from, or save this one dequantised"
        )
    return quantizer


def _linear(packed: "nn.Module", dtype: "torch.dtype") -> "nn.Linear":
    """Return a linear layer with the weights of a packed one: what that makes of the rows of an identity."""
    import torch
    from torch import nn

    made: Any = packed
    bias, made.bias = made.bias, None
    with torch.device("meta"):
        linear = nn.Linear(made.in_features, made.out_features, bias=bias is not None)
    with torch.no_grad():
        # The type of its scales.
        identity = torch.eye(made.in_features, dtype=torch.float16, device=made.qweight.device)
        linear.weight = nn.Parameter(made(identity).mT.to(dtype).contiguous(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().to(dtype), requires_grad=False)
    return linear


def _dense(weight: Any, dtype: "torch.dtype") -> "nn.Parameter":
    from torch import nn

    return nn.Parameter(weight.dequantize().to(dtype), requires_grad=False)


def _quantised_parameters(model: "nn.Module") -> "Iterator[tuple[nn.Module, str, Any]]":
    """Yield the parameters that torchao quantised, which are tensors of a kind of their own."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if type(parameter.data).__module__.startswith("torchao."):
                yield module, name, parameter


def device_map_of(devices: DeviceGroup) -> dict[str, str]:
    """Return the device map of a model that is whole on one device: quantised weights are put there, not moved."""
    return {"": str(devices.first)}
