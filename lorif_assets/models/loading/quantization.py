"""Checkpoints whose weights are quantised: refused where they cannot run, and loaded so that gradients go through them.

Libraries multiply packed weights in kernels, most of which have no backward pass. What bitsandbytes and torchao quantise
stays as it is, with kernels that have one; all else is dequantised as it is loaded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorif_assets.errors import CheckpointError
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.quantised_weights import quantization

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedConfig, PreTrainedModel

# gptqmodel reads both; its plain layers, alone of all, can be built on every device.
_UNPACKED = {"gptq": "torch", "awq": "torch_awq"}
_LIBRARIES = {"gptq": "gptqmodel and optimum", "awq": "gptqmodel"}
_FOLLOWED = frozenset({"bitsandbytes", "torchao"})
"""Methods whose packed layers are linear ones of torch, and let gradients through."""
_WHILE_IT_RUNS = ("input", "output", "q_attn", "k_cache")
"""Where a rotation is not in the weights, but multiplies what goes through the model."""


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
    return quantizer is not None and quantizer.quantization_config.quant_method in _FOLLOWED


def for_gradients(config: "PreTrainedConfig", checkpoint: Path) -> "PreTrainedConfig":
    """Return the configuration of a model in a folder, changed so that its weights let gradients through once loaded."""
    if quantised := quantization(checkpoint):
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
    if hasattr(model, "ct_decompress_hook"):
        _decompress(model)
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
    method = quantizer.quantization_config.quant_method
    for module, name, weight in list(_quantised_parameters(model)):
        setattr(module, name, _dense(weight, model.dtype))
    if method in _FOLLOWED and method != "torchao":
        try:
            return quantizer.dequantize(model, dtype=model.dtype)
        except NotImplementedError as error:
            raise CheckpointError(
                f"the base model {folder} of an adapter is quantised, and {method} cannot dequantise it: set "
                "`checkpoints.base_model` to the model that it was quantised from"
            ) from error
    quantizer.remove_quantization_config(model)
    return model


def _for_gradients(quantised: dict[str, Any]) -> dict[str, Any]:
    method = quantised.get("quant_method")
    if method in _UNPACKED:
        return {**quantised, "backend": _UNPACKED[method]}
    if _can_dequantise(quantised) and not _has_several_schemes(quantised):
        return {**quantised, "dequantize": True}
    return quantised


def _can_dequantise(quantised: dict[str, Any]) -> bool:
    from transformers.quantizers.auto import AutoQuantizationConfig

    return hasattr(AutoQuantizationConfig.from_dict(dict(quantised)), "dequantize")


def _has_several_schemes(quantised: dict[str, Any]) -> bool:
    """Return whether layers are quantised in different ways: transformers would dequantise all, but for experts, in one."""
    schemes = [_dict(scheme) for scheme in _dict(quantised.get("config_groups")).values()]
    return sum(not any("experts" in target for target in scheme.get("targets") or ()) for scheme in schemes) > 1


def _quantizer(checkpoint: Path, devices: DeviceGroup | None) -> Any:
    """Return transformers' quantizer of the weights in a folder, or None where they are not quantised."""
    config = quantization(checkpoint)
    if config is None:
        return None
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AutoHfQuantizer

    method = _method(config)
    if method not in {*AUTO_QUANTIZATION_CONFIG_MAPPING, "bitsandbytes"}:
        raise CheckpointError(
            f"{checkpoint} has weights quantised by {method}, which transformers does not know: name the model that "
            "it was quantised from, or dequantise this one by what it was quantised with"
        )
    if rotations := _rotations(config):
        raise CheckpointError(
            f"{checkpoint} has weights quantised by {method} that fit rotations of what its layers read or write "
            f"({rotations[0]}, {len(rotations)} such, in `transform_config`), and transformers makes none: name the model that "
            "it was quantised from, or quantise that without online rotations"
        )
    try:
        quantizer = AutoHfQuantizer.from_config(_for_gradients(config), pre_quantized=True)
        quantizer.validate_environment(device_map=device_map_of(devices) if devices else None)
        unpacked = method in _UNPACKED or _can_dequantise(config)
    except Exception as error:
        # Beside a library that is half there, or of another version, these are of any kind.
        raise CheckpointError(
            f"{checkpoint} has weights quantised by {method}, which cannot run here: {error}. Install "
            f"{_LIBRARIES.get(method, 'what is missing')}, choose other devices, or save the model dequantised: "
            "`model.dequantize().save_pretrained(...)`"
        ) from error
    if unpacked:
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


def _method(quantised: dict[str, Any]) -> str:
    """Return the method in words: the notes of MLX, and early ones of bitsandbytes, do not say it."""
    if method := quantised.get("quant_method"):
        return str(method)
    if quantised.get("load_in_4bit") or quantised.get("load_in_8bit"):
        return "bitsandbytes"
    return "MLX" if {"bits", "group_size"} <= quantised.keys() else "an unnamed method"


def _rotations(quantised: dict[str, Any]) -> list[str]:
    """Return the names of the rotations (as of SpinQuant or QuIP) that a model has to make while it runs."""
    groups = _dict(_dict(quantised.get("transform_config")).get("config_groups"))
    return [
        name
        for name, group in groups.items()
        if any(_dict(place).get("location") in _WHILE_IT_RUNS for place in _dict(group).get("apply") or ())
    ]


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


def _decompress(model: Any) -> None:
    """Make the layers that compressed-tensors packed ordinary ones of the model's type."""
    from compressed_tensors.compressors import decompress_module

    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            decompress_module(module, leave_decompressed=False)
            module.to(model.dtype)
    # Else the first pass would look for packed layers once more.
    model.hf_quantizer.compressor.remove_decompression_hook(model)


def _dense(weight: Any, dtype: "torch.dtype") -> "nn.Parameter":
    from torch import nn

    return nn.Parameter(weight.dequantize().to(dtype), requires_grad=False)


def _quantised_parameters(model: "nn.Module") -> "Iterator[tuple[nn.Module, str, Any]]":
    """Yield the parameters that torchao quantised, which are tensors of a kind of their own."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if type(parameter.data).__module__.startswith("torchao."):
                yield module, name, parameter


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def device_map_of(devices: DeviceGroup) -> dict[str, str]:
    """Return the device map of a model that is whole on one device: quantised weights are put there, not moved."""
    return {"": str(devices.first)}
