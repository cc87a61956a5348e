"""Which weights of a model are tracked: linear layers of the transformer blocks, by default all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from lorif_assets.errors import LorifError


class LayerError(LorifError):
    """A layer pattern matches nothing, or a layer has a form whose per-example gradient cannot be collected."""


@dataclass(frozen=True)
class TrackedLayer:
    """One linear weight: its module path, input width I and output width O."""

    name: str
    d_in: int
    d_out: int


def linear_widths(module: nn.Module) -> tuple[int, int] | None:
    """Input and output width of an `nn.Linear` or a GPT-2 `Conv1D` (weight [I, O]); None for any other module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    # Conv1D belongs to transformers, which the mathematics does not import.
    if type(module).__name__ == "Conv1D" and isinstance(weight := getattr(module, "weight", None), nn.Parameter):
        return int(weight.shape[0]), int(weight.shape[1])
    return None


def is_in_block(name: str) -> bool:
    """Whether a module path lies in a repeated transformer block, i.e. has a numbered component (`h.0.attn.c_attn`)."""
    return any(part.isdecimal() for part in name.split("."))


def is_adapter_matrix(name: str) -> bool:
    """Whether a module path is that of a matrix A or B of a LoRA adapter, as peft names them."""
    return not {"lora_A", "lora_B"}.isdisjoint(name.split("."))


def select_layers(
    model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = (), *, of_adapter: bool = False
) -> list[TrackedLayer]:
    """Return the tracked layers in the model's order.

    Args:
        model: any module tree.
        include: shell-style patterns over module paths. Empty: every linear weight of the transformer blocks, hence
            neither embeddings nor the LM head.
        exclude: patterns that take layers out again.
        of_adapter: choose among the matrices A and B of a LoRA adapter, which are left out otherwise.

    Raises:
        LayerError: a pattern matches no linear layer, nothing is left, or a block holds fused experts (one 3-D weight
            for many experts), whose per-expert inputs a hook does not see.
    """
    linear = {
        name: TrackedLayer(name, *widths)
        for name, module in model.named_modules()
        if (widths := linear_widths(module)) is not None and is_adapter_matrix(name) == of_adapter
    }
    if not linear and of_adapter:
        raise LayerError(f"{type(model).__name__} has no LoRA adapter, whose matrices were to be tracked")
    if not linear:
        raise LayerError(f"{type(model).__name__} has no linear layer (nn.Linear or Conv1D), so nothing can be tracked")
    for pattern in (*include, *exclude):
        if not any(fnmatchcase(name, pattern) for name in linear):
            raise LayerError(
                f"layer pattern {pattern!r} matches none of the model's {len(linear)} linear layers; "
                f"they are named like {', '.join(list(linear)[:4])}"
            )

    def excluded(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in exclude)

    chosen = [
        layer
        for name, layer in linear.items()
        if (any(fnmatchcase(name, pattern) for pattern in include) if include else is_in_block(name))
        and not excluded(name)
    ]
    if not chosen:
        raise LayerError(
            "no layer is left to track: "
            + (
                "`exclude` takes out all that `include` names"
                if include
                else "the blocks' linear layers are all excluded"
            )
            + f"; linear layers are named like {', '.join(list(linear)[:4])}"
        )
    if not include and not of_adapter:
        _refuse_fused_experts(model)
    return chosen


def _refuse_fused_experts(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        # The kernels of depthwise convolutions are 3-D too, with a side of 1.
        if parameter.ndim == 3 and 1 not in parameter.shape and is_in_block(name):
            raise LayerError(
                f"{name} is a fused expert weight of shape {list(parameter.shape)}; fused mixtures of experts are not "
                "supported. Name the layers to track in `recipe.include_layers` (for instance '*self_attn*')"
            )
