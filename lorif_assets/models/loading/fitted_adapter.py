"""An adapter put on a base model without numbers, by peft: what it changes, and whether its file has all that it asks for."""

import inspect
import logging
import re
from collections.abc import Iterator, Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.adapter_files import AdapterFiles, matrices_on_parameters
from lorif_assets.models.files.weight_names import unwrapped
from lorif_assets.models.loading.grown_embeddings import grow_embeddings
from lorif_assets.models.loading.starting_values import refuse_start_without_gpu

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

Track = Literal["weights", "adapter"]
"""What is tracked of a model with an adapter: its weights, with the adapter merged into them, or the adapter's matrices."""

_LOG = logging.getLogger(__name__)
_NAME = "default"
"""What peft calls an adapter that is alone."""
# What torch says of each weight whose shape is not that of its place.
_OTHER_SHAPES = re.compile(r"size mismatch for (\S+): .*?torch\.Size\((.*?)\).*?torch\.Size\((.*?)\)")
_WITHOUT_NUMBERS = re.compile("meta", re.IGNORECASE)
"""What torch says where an operation needs a tensor's numbers, which those on the meta device do not have."""
_WRAPPED_COPIES = (".modules_to_save.weight", ".original_module.weight")
_ROWS_OF_TOKENS = ".token_adapter."
# By these MonteCLoRA draws noise in training; merged, as in evaluation, it is the LoRA alone.
_OF_TRAINING = ".lora_monteclora_sampler."


def adapter_weights(adapter: Path, model: "PreTrainedModel") -> "dict[str, Tensor]":
    """Return the tensors of an adapter's file, by their names there.

    Raises:
        CheckpointError: the file cannot be read, or has a wrapper of the model in its names.
    """
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


def fitted(skeleton: "PreTrainedModel", adapter: Path, weights: "Mapping[str, Tensor]", track: Track) -> "PeftModel":
    """Put an adapter on a model without values, with its weights' names and shapes held against those of the model.

    Raises:
        CheckpointError: the adapter's file lacks a weight that its configuration asks for, or has one without a place; peft
            cannot put it on a model here; or matrices that are to be tracked are on parameters.
    """
    from peft import PeftConfig

    _refuse_unknown(adapter)
    grow_embeddings(skeleton, weights, adapter)
    config = PeftConfig.from_pretrained(str(adapter))
    refuse_start_without_gpu(adapter, config)
    _refuse_other_biases(adapter, config)
    adapted = _put_on(skeleton, adapter, config)
    if track == "adapter" and (parameters := _parameters_with_matrices(adapted)):
        raise matrices_on_parameters(adapter, parameters)
    _refuse_others(adapted, adapter, weights)
    return adapted


def _put_on(skeleton: "PreTrainedModel", adapter: Path, config: "PeftConfig") -> "PeftModel":
    from peft import PeftModel

    config.inference_mode = True
    if hasattr(config, "init_lora_weights"):
        # Others decompose the base's weights.
        config.init_lora_weights = True
    ranks = getattr(config, "rank_pattern", None) if config.peft_type.value == "ADALORA" else None
    if ranks:
        # peft would take the ranks out of matrices that have no numbers.
        config.rank_pattern = None
    try:
        adapted = PeftModel(skeleton, config, low_cpu_mem_usage=True)
    except NotImplementedError as error:
        if not _WITHOUT_NUMBERS.search(str(error)):
            raise
        raise CheckpointError(
            f"the adapter {adapter} is of the kind {config.peft_type.value}, which peft cannot put on a model without its "
            "numbers: merge it by `merge_and_unload`, save the whole model, and set `checkpoints.path` to that"
        ) from error
    if ranks:
        _allocate(adapted, ranks, config)
    return adapted


def _allocate(adapted: "PeftModel", ranks: Mapping[str, Sequence[bool]], config: "PeftConfig") -> None:
    """Give the layers of an AdaLoRA as many ranks as training left them.

    Args:
        adapted: without numbers, with the ranks that training began with.
        ranks: by each layer's name and `lora_E`, which ranks are left.
        config: the adapter's.
    """
    import torch

    inner = adapted.get_base_model()
    for name, kept in ranks.items():
        layer = inner.get_submodule(name.removesuffix(f".{_NAME}").removesuffix(".lora_E"))
        with torch.device("meta"):
            layer.update_layer(_NAME, sum(kept), config.lora_alpha, config=config)


def _refuse_others(adapted: "PeftModel", adapter: Path, weights: "Mapping[str, Tensor]") -> None:
    """Refuse an adapter whose file does not hold the weights that its configuration and the model ask for.

    Raises:
        CheckpointError: a weight is missing, has another shape, or has no place.
    """
    from peft import set_peft_model_state_dict

    if whole := [(field, name) for field, name in _whole_modules(adapted) if name not in weights]:
        what = f"which its configuration says it trained (`{whole[0][0]}`)"
        raise _missing(adapter, [name for _, name in whole], what)
    shared = _shared(adapted)
    try:
        loaded = set_peft_model_state_dict(
            adapted, {name: tensor.to("meta") for name, tensor in weights.items()}, low_cpu_mem_usage=True
        )
    except RuntimeError as error:
        if not (others := _OTHER_SHAPES.findall(str(error))):
            raise
        name, own, wanted = others[0]
        raise CheckpointError(
            f"the adapter {adapter} holds {name} of the shape {own} ({len(others)} such), where its configuration and its "
            f"base model ask for {wanted}; was it trained on another one?"
        ) from error
    missing = set(loaded.missing_keys)
    if random := sorted(name for name in _own_parameters(adapted, missing) if shared.get(name, {name}) <= missing):
        raise _missing(adapter, random, "which would be random")
    if biases := sorted(_trained_biases(adapted) & missing):
        raise _missing(adapter, biases, f"which its configuration says it trained (`bias = {_bias(adapted)!r}`)")
    unexpected = [
        name for name in loaded.unexpected_keys if not _is_second_copy(name, weights) and _OF_TRAINING not in name
    ]
    if unexpected:
        raise CheckpointError(
            f"the adapter {adapter} holds {min(unexpected)} ({len(unexpected)} such), for which the base model has no place; "
            "was it trained on another one?"
        )


def _missing(adapter: Path, names: Sequence[str], what: str) -> CheckpointError:
    return CheckpointError(
        f"the adapter {adapter} holds no weight for {names[0]} ({len(names)} such), {what}; is adapter_config.json that of "
        "these weights, and was the adapter trained on this base model?"
    )


def _whole_modules(adapted: "PeftModel") -> Iterator[tuple[str, str]]:
    """Yield the weights that an adapter replaces or has rows of, by field of the configuration and name in the file."""
    from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper

    for name, module in adapted.named_modules():
        if isinstance(module, AuxiliaryTrainingWrapper):
            field = "modules_to_save" if isinstance(module, ModulesToSaveWrapper) else "trainable_token_indices"
            yield from ((field, f"{name}.{key}") for key in module.adapter_state_dict_load_map(_NAME))


def _shared(adapted: "PeftModel") -> dict[str, set[str]]:
    """Return the names of each parameter that has several: layers of some kinds share one, which is stored once."""
    names: dict[int, set[str]] = {}
    for name, parameter in adapted.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {name: same for same in names.values() if len(same) > 1 for name in same}


def _own_parameters(adapted: "PeftModel", names: Set[str]) -> list[str]:
    """Return those of a model's weights that are the adapter's own."""
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    prefix = PEFT_TYPE_TO_PREFIX_MAPPING[adapted.peft_config[_NAME].peft_type]
    return [name for name in names if prefix in name]


def _bias(adapted: "PeftModel") -> str:
    return str(getattr(adapted.peft_config[_NAME], "bias", "none"))


def _trained_biases(adapted: "PeftModel") -> set[str]:
    """Return the biases of the base model that an adapter trains where they are: all, or those of its layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    bias = _bias(adapted)
    if bias == "none":
        return set()
    biases = {name for name, _ in adapted.named_parameters(remove_duplicate=False) if name.endswith(".bias")}
    if bias == "all":
        return {name for name in biases if ".original_module." not in name}
    layers = (name for name, module in adapted.named_modules() if isinstance(module, BaseTunerLayer))
    return biases & {f"{name}.base_layer.bias" for name in layers}


def _refuse_other_biases(adapter: Path, config: "PeftConfig") -> None:
    """Refuse an adapter whose configuration says of biases what peft does not know.

    Raises:
        CheckpointError: it does.
    """
    bias = getattr(config, "bias", "none")
    if not isinstance(bias, str) or (bias not in {"none", "all"} and not bias.endswith("_only")):
        raise CheckpointError(
            f"the adapter {adapter} says `bias = {bias!r}` in its configuration, where peft knows 'none', 'all' and, of a "
            "LoRA, 'lora_only': correct adapter_config.json to what it was trained with"
        )


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


def _parameters_with_matrices(adapted: "PeftModel") -> list[str]:
    """Return the parameters that a LoRA's matrices are added to, which peft makes of experts that it names as modules too."""
    from peft.tuners.lora.layer import ParamWrapper

    return sorted({module.parameter_name for module in adapted.modules() if isinstance(module, ParamWrapper)})


def _is_second_copy(name: str, weights: "Mapping[str, Tensor]") -> bool:
    """Whether a name is one more of what the file has already, as peft saves trained embeddings that have new tokens."""
    if any(name.endswith(copy) and f"{name.removesuffix(copy)}.weight" in weights for copy in _WRAPPED_COPIES):
        return True
    # Of embeddings and a head that are tied, one is trained.
    module, wrapper, rest = name.rpartition(_ROWS_OF_TOKENS)
    return bool(module) and any(
        other != name and other.endswith(wrapper + rest) and weights[other].equal(weights[name]) for other in weights
    )
