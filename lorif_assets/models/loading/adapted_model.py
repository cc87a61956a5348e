"""Adapters put on a base model by peft: merged into its weights, or left beside them.

The base model's tensors stay as they are: models share them, and each has its own only where its adapter changes them.
"""

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorif_assets.errors import CheckpointError
from lorif_assets.models.loading.fitted_adapter import Track, adapter_weights, fitted
from lorif_assets.models.loading.grown_embeddings import INSIDE, grow_embeddings
from lorif_assets.models.loading.starting_values import refuse_start_in_type

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

_TOKENS = 8
_LARGEST_DIFFERENCE = {"torch.float64": 1e-6, "torch.float32": 1e-3}
"""Of the logits before and after merging, relative."""
_DIFFERENCE_OF_ROUNDED = 0.1, 0.5
"""In other types merged weights are rounded anew, and experts chosen anew: relative, and in parts of what the adapter does."""


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
        weights = adapter_weights(adapter, skeleton)
        # Without values first: what the adapter changes is known before anything is written.
        without_values = fitted(skeleton, adapter, weights, track)
        refuse_start_in_type(adapter, base.dtype)
        model = sharing_copy(base)
        grow_embeddings(model, weights, adapter)
        _own_tensors(model, _changed_modules(without_values), weights)
        _add_biases(model, _lacking_biases(without_values))
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
        adapted = fitted(skeleton, adapter, adapter_weights(adapter, skeleton), track)
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


def _changed_modules(adapted: "PeftModel") -> Set[str]:
    """Return the modules that an adapter changes or replaces, by their names in the base model."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return {
        name.removeprefix(INSIDE)
        for name, module in adapted.named_modules()
        if isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
    }


def _lacking_biases(adapted: "PeftModel") -> list[str]:
    """Return the layers without a bias to which an adapter adds one, by their names in the base model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [
        name.removeprefix(INSIDE)
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
    written = {name.removeprefix(INSIDE) for name in weights}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in written:
            parameter.data = parameter.data.clone()


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
