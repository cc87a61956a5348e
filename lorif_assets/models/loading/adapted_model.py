"""Adapters put on a base model by peft: merged into its weights, or left beside them.

The base model's tensors stay as they are: models share them, and each has its own only where its adapter changes them.
"""

import copy
import inspect
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.adapter_files import AdapterFiles, matrices_on_parameters
from lorif_assets.models.files.weight_names import unwrapped

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

Track = Literal["weights", "adapter"]
"""What is tracked of a model with an adapter: its weights, with the adapter merged into them, or the adapter's matrices."""

_LOG = logging.getLogger(__name__)
_INSIDE = "base_model.model."
# What torch says of each weight whose shape is not that of its place.
_OTHER_SHAPES = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)")
_TOKENS = 8
_LARGEST_DIFFERENCE = {"torch.float64": 1e-6, "torch.float32": 1e-3}
"""Of the logits before and after merging, relative."""
_DIFFERENCE_OF_ROUNDED = 0.1, 0.5
"""In other types merged weights are rounded anew, and experts chosen anew: relative, and in parts of what the adapter does."""
# Layers of these kinds share parameters that are stored once.
_SHARING_KINDS = frozenset({"TINYLORA", "UNILORA", "VBLORA"})
# Where an adapter's file has the rows of embeddings with new tokens: first as they were before training, if they were trained.
_ROWS_OF_EMBEDDINGS = (
    ".original_module.weight",
    ".token_adapter.base_layer.weight",
    ".base_layer.weight",
    ".weight",
    ".lora_embedding_A",
)
_WRAPPED_COPIES = (".modules_to_save.weight", ".original_module.weight")
_ROWS_OF_TOKENS = ".token_adapter."


def adapted_model(
    base: "PreTrainedModel", skeleton: "PreTrainedModel", adapter: Path, track: Track
) -> "PreTrainedModel":
    """Return a base model with an adapter, in eval mode and frozen: new modules that share the base's tensors.

    Args:
        base: the base model on the CPU; it is left as it is.
        skeleton: the same on the meta device; it is used up.
        adapter: the adapter's folder.
        track: with `weights`, the adapter is merged.

    Raises:
        CheckpointError: peft cannot put it on this model, or cannot merge it.
    """
    from peft import PeftModel

    with _explained(adapter, "put on its base model"):
        weights = _weights(adapter, skeleton)
        # Without values first: what the adapter changes is known before anything is written.
        fitted = _fitted(skeleton, adapter, weights, track)
        model = sharing_copy(base)
        _resize(model, weights, adapter)
        _own_tensors(model, _changed_modules(fitted), weights)
        _add_biases(model, _lacking_biases(fitted))
        adapted = PeftModel.from_pretrained(model, str(adapter), torch_device="cpu")
    if track == "adapter":
        model = adapted.get_base_model()
    else:
        with _explained(adapter, "merged into its base model"):
            expected = _logits(adapted.eval())
            with adapted.disable_adapter():
                without = _logits(adapted)
            model = adapted.merge_and_unload(safe_merge=True)
            _refuse_other_logits(model, expected, without, adapter)
    return model.requires_grad_(False).eval()


def adapted_skeleton(skeleton: "PreTrainedModel", adapter: Path, track: Track) -> "PreTrainedModel":
    """Return the layers and shapes of a base model with an adapter, on the meta device; the base's skeleton is used up.

    Raises:
        CheckpointError: the adapter does not fit the base model.
    """
    with _explained(adapter, "put on its base model"):
        adapted = _fitted(skeleton, adapter, _weights(adapter, skeleton), track)
        if track == "adapter":
            return adapted.get_base_model()
        lacking = _lacking_biases(adapted)
        model: PreTrainedModel = adapted.unload()
        _add_biases(model, lacking)
        return model


def _logits(model: Any) -> "Tensor":
    import torch

    ids = torch.arange(_TOKENS).unsqueeze(0) % model.get_input_embeddings().weight.shape[0]
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.double()


def _refuse_other_logits(model: "PreTrainedModel", expected: "Tensor", without: "Tensor", adapter: Path) -> None:
    """Refuse a merged model that does not predict what the adapter beside its base model does.

    Args:
        model: merged.
        expected: logits of the base model with the adapter beside it.
        without: logits of the base model alone.
        adapter: its folder.

    Raises:
        CheckpointError: with how much they differ.
    """
    difference, effect = (float((other - expected).norm() / expected.norm()) for other in (_logits(model), without))
    relative, of_effect = _DIFFERENCE_OF_ROUNDED
    if not difference <= _LARGEST_DIFFERENCE.get(str(model.dtype), max(relative, of_effect * effect)):
        raise CheckpointError(
            f"the adapter {adapter} merged into its base model predicts something else than beside it (logits differ by "
            f"{difference:.1%}): its kind cannot be merged by this version of peft. For LoRA, "
            '`recipe.track = "adapter"` leaves it beside'
        )


def sharing_copy(base: "PreTrainedModel") -> "PreTrainedModel":
    """Return new modules with a model's tensors, frozen; to move one of the two to a device leaves the other in place."""
    from torch import nn

    tensors: dict[int, Any] = {id(p): nn.Parameter(p.data, requires_grad=False) for p in base.parameters()}
    tensors |= {id(buffer): buffer for buffer in base.buffers()}
    return copy.deepcopy(base, tensors)


def _weights(adapter: Path, model: "PreTrainedModel") -> "dict[str, Tensor]":
    from peft.utils import load_peft_weights
    from safetensors import SafetensorError

    renamed = getattr(model, "_checkpoint_conversion_mapping", None)
    try:
        weights: dict[str, Tensor] = load_peft_weights(str(adapter), device="cpu", key_mapping=renamed)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"the weights of the adapter {adapter} cannot be read: {error}") from error
    if wrapped := [name for name, bare in zip(weights, unwrapped(list(weights)), strict=True) if name != bare]:
        raise CheckpointError(
            f"the adapter {adapter} was saved with a wrapper of its model (torch.compile, FSDP, DistributedDataParallel) in "
            f"the names of its weights, {wrapped[0]} say, where peft does not find them: save the model inside the wrapper "
            "by `save_pretrained`, or take the prefix out of the names in its file"
        )
    return weights


def _fitted(skeleton: "PreTrainedModel", adapter: Path, weights: "Mapping[str, Tensor]", track: Track) -> "PeftModel":
    """Put an adapter on a model without values, with its weights' names and shapes held against those of the model.

    Raises:
        CheckpointError: the adapter's file lacks a weight that its configuration asks for, or has one without a place; or
            matrices that are to be tracked are on parameters.
    """
    from peft import PeftConfig, PeftModel, set_peft_model_state_dict
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    _refuse_unknown(adapter)
    _resize(skeleton, weights, adapter)
    config = PeftConfig.from_pretrained(str(adapter))
    config.inference_mode = True
    if hasattr(config, "init_lora_weights"):
        # Others decompose the base's weights.
        config.init_lora_weights = True
    try:
        adapted = PeftModel(skeleton, config, low_cpu_mem_usage=True)
    except NotImplementedError as error:
        raise CheckpointError(
            f"the adapter {adapter} is of the kind {config.peft_type.value}, which peft cannot put on a model without its "
            "numbers: merge it by `merge_and_unload`, save the whole model, and set `checkpoints.path` to that"
        ) from error
    if track == "adapter" and (parameters := _parameters_with_matrices(adapted)):
        raise matrices_on_parameters(adapter, parameters)
    shapes = {name: tensor.to("meta") for name, tensor in weights.items()}
    try:
        loaded = set_peft_model_state_dict(adapted, shapes, low_cpu_mem_usage=True)
    except RuntimeError as error:
        if not (others := _OTHER_SHAPES.findall(str(error))):
            raise
        name, own, wanted = others[0]
        raise CheckpointError(
            f"the adapter {adapter} holds {name} of the shape {own} ({len(others)} such), where its configuration and its "
            f"base model ask for {wanted}; was it trained on another one?"
        ) from error
    prefix = PEFT_TYPE_TO_PREFIX_MAPPING[config.peft_type]
    missing = sorted(name for name in loaded.missing_keys if prefix in name)
    if missing and config.peft_type.value not in _SHARING_KINDS:
        raise CheckpointError(
            f"the adapter {adapter} holds no weight for {missing[0]} ({len(missing)} such), which would be random; is "
            "adapter_config.json that of these weights, and was the adapter trained on this base model?"
        )
    if unexpected := [name for name in loaded.unexpected_keys if not _is_second_copy(name, weights)]:
        raise CheckpointError(
            f"the adapter {adapter} holds {min(unexpected)} ({len(unexpected)} such), for which the base model has no place; "
            "was it trained on another one?"
        )
    return adapted


def _refuse_unknown(adapter: Path) -> None:
    """Refuse an adapter of a kind that peft does not know, and warn of what its configuration says in fields unknown to it.

    Raises:
        CheckpointError: the kind is unknown.
    """
    import peft

    config = AdapterFiles(adapter).config
    kind, known = config["peft_type"], peft.PEFT_TYPE_TO_CONFIG_MAPPING
    saved_by = f", and was saved by peft {config['peft_version']}" if config.get("peft_version") else ""
    if kind not in known:
        raise CheckpointError(
            f"the adapter {adapter} is of the kind {kind}, which peft {peft.__version__} does not know{saved_by}: merge it by "
            "`merge_and_unload` where its own peft is installed, save the whole model, and set `checkpoints.path` to that"
        )
    fields = inspect.signature(known[kind]).parameters
    if unknown := sorted(name for name, value in config.items() if value and name not in fields):
        _warn_once(
            f"the adapter {adapter} says {', '.join(unknown)} in its configuration, which peft {peft.__version__} does not know"
            f"{saved_by}: it is attributed without. A newer peft may read it: `pip install --upgrade peft`"
        )


@lru_cache(maxsize=64)
def _warn_once(message: str) -> None:
    _LOG.warning(message)


def _changed_modules(adapted: "PeftModel") -> Set[str]:
    """Return the modules that an adapter changes or replaces, by their names in the base model."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return {
        name.removeprefix(_INSIDE)
        for name, module in adapted.named_modules()
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
    }


def _parameters_with_matrices(adapted: "PeftModel") -> list[str]:
    """Return the parameters that a LoRA's matrices are added to, which peft makes of experts that it names as modules too."""
    from peft.tuners.lora.layer import ParamWrapper

    return sorted({module.parameter_name for module in adapted.modules() if isinstance(module, ParamWrapper)})


def _lacking_biases(adapted: "PeftModel") -> list[str]:
    """Return the layers without a bias to which an adapter adds one, by their names in the base model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [
        name.removeprefix(_INSIDE)
        for name, module in adapted.named_modules()
        if isinstance(module, BaseTunerLayer)
        and (any(getattr(module, "lora_bias", {}).values()) or getattr(module, "beft_bias", None))
        and module.get_base_layer().bias is None
    ]


def _add_biases(model: "PreTrainedModel", layers: Sequence[str]) -> None:
    """Give layers biases of zero, where peft would not merge those of an adapter."""
    from torch import nn

    for name in layers:
        weight = model.get_submodule(name).weight
        model.get_submodule(name).bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=False)


def _own_tensors(model: "PreTrainedModel", changed: Set[str], weights: "Mapping[str, Tensor]") -> None:
    """Give a model tensors of its own wherever an adapter writes; an adapted layer is no longer tied to another one."""
    from torch import nn

    for name, module in model.named_modules():
        if name in changed:
            for owner in list(module.modules()):
                for key, parameter in list(owner.named_parameters(recurse=False)):
                    setattr(owner, key, nn.Parameter(parameter.data.clone(), requires_grad=False))
    written = {name.removeprefix(_INSIDE) for name in weights}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in written:
            parameter.data = parameter.data.clone()


def _resize(model: "PreTrainedModel", weights: "Mapping[str, Tensor]", adapter: Path) -> None:
    """Give a model as many rows of embeddings as its adapter was trained with.

    Raises:
        CheckpointError: the adapter has rows for new tokens in one of the embeddings and in the other one not.
    """
    names = {module: name for name, module in model.named_modules()}
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    trained = {part: _rows(weights, names[part]) for part in (inputs, outputs) if part is not None}
    rows, present = next((rows for rows in trained.values() if rows is not None), None), int(inputs.weight.shape[0])
    if rows is None or rows == present:
        return
    tied = outputs is not None and outputs.weight is inputs.weight
    if rows > present and not tied and None in trained.values():
        part = next(names[part] for part, found in trained.items() if found is None)
        raise CheckpointError(
            f"the adapter {adapter} embeds {rows} tokens, {rows - present} more than its base model, but holds no rows of "
            f"{part} for them, which would be random; save it with `save_embedding_layers=True`"
        )
    model.resize_token_embeddings(rows, mean_resizing=False)
    if tied:
        # An adapter on one of the two brings the new rows of that one alone.
        saved = next(tensor for part in trained if (tensor := _saved_rows(weights, names[part])) is not None)
        grown = model.get_input_embeddings().weight
        if saved.shape == grown.shape and not grown.is_meta:
            grown.data.copy_(saved)


def _rows(weights: "Mapping[str, Tensor]", module: str) -> int | None:
    saved = _saved_rows(weights, module)
    return None if saved is None else len(saved)


def _saved_rows(weights: "Mapping[str, Tensor]", module: str) -> "Tensor | None":
    """Return what an adapter's file has of the rows of a model's embeddings, or of its head: None where it has nothing."""
    for suffix in _ROWS_OF_EMBEDDINGS:
        if (tensor := weights.get(f"{_INSIDE}{module}{suffix}")) is not None:
            return tensor.mT if suffix == ".lora_embedding_A" else tensor
    return None


def _is_second_copy(name: str, weights: "Mapping[str, Tensor]") -> bool:
    """Whether a name is one more of what the file has already, as peft saves trained embeddings that have new tokens."""
    if any(name.endswith(copy) and f"{name.removesuffix(copy)}.weight" in weights for copy in _WRAPPED_COPIES):
        return True
    # Of embeddings and a head that are tied, one is trained.
    module, wrapper, rest = name.rpartition(_ROWS_OF_TOKENS)
    return bool(module) and any(
        other != name and other.endswith(wrapper + rest) and weights[other].equal(weights[name]) for other in weights
    )


@contextmanager
def _explained(adapter: Path, what: str) -> Iterator[None]:
    """Turn what peft raises into an error that names the adapter; what it warns of is decided here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (
        AssertionError,
        AttributeError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        message = str(error).strip() or type(error).__name__
        raise CheckpointError(f"the adapter {adapter} cannot be {what}: {message}") from error
