"""Which weights of a model are tracked: linear layers of the transformer blocks, by default all of them."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from lorif_assets.errors import LorifError
from lorif_assets.mathematics.gradients.expert_forms import experts_per_token, fused_weights
from lorif_assets.mathematics.gradients.experts import FusedWeight

_SHOWN = 4
_MATRICES = frozenset({"lora_A", "lora_B"})
_TAKEN_FROM_MODULES = ("dt_proj", "router.classifier")
"""Modules whose weights models multiply by themselves."""
_WITHOUT_GRADIENT = frozenset({"encoder_attn", "crossattention", "cross_attn", "encoder_decoder_attention", "indexer"})
"""Parts of a block that a text alone does not reach, as it has no encoder's output, or that choose and do not compute."""
_OTHER_SENSES = frozenset(
    {
        *("image_encoder", "vision_model", "vision_tower", "visual_projection"),
        *("audio_tower", "audio_encoder", "embed_tokens_extend", "vqmodel"),
        # Of a block: the experts of what a picture says.
        "vision_moe",
    }
)
"""Parts that see or hear, within a language model or one whose configuration does not tell it apart."""
_BLOCKS_OF_PICTURES = frozenset({"MllamaCrossAttentionDecoderLayer"})


class LayerError(LorifError):
    """A layer pattern matches nothing, or a layer has a form whose per-example gradient cannot be collected."""


@dataclass(frozen=True)
class TrackedLayer:
    """One linear weight: its name, input width I and output width O.

    The name is the path of its module; that of an expert whose weight is fused with others' is the path that it would have
    as a module of its own, and `expert` its number.
    """

    name: str
    d_in: int
    d_out: int
    expert: int | None = None


class Sight(Enum):
    """Where the products with a weight are seen: at its module's output, by watching the weight, or in its experts."""

    MODULE = "module"
    WEIGHT = "weight"
    EXPERTS = "experts"


@dataclass(frozen=True)
class LinearWeight:
    """A linear weight, the module that holds it with the module's path, and where its products are seen."""

    layer: TrackedLayer
    path: str
    module: nn.Module
    sight: Sight
    n_experts: int = 1
    """Between how many such weights the tokens are shared out."""
    fused: FusedWeight | None = None
    """Of an expert, the parameter that its weight is a part of."""
    twins: tuple[nn.Module, ...] = ()
    """Other modules with the same parameter: blocks that share it are one layer, with the products of all."""

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter that the weight is, or is a part of."""
        return self.module.get_parameter(self.fused.parameter if self.fused else "weight")


def linear_widths(module: nn.Module) -> tuple[int, int] | None:
    """Input and output width of an `nn.Linear` or a GPT-2 `Conv1D` (weight [I, O]); None for any other module."""
    # Some keep a block-diagonal weight, and call it linear.
    if isinstance(module, nn.Linear) and "Grouped" not in type(module).__name__:
        return module.in_features, module.out_features
    # Conv1D belongs to transformers, which the mathematics does not import.
    if type(module).__name__ == "Conv1D" and isinstance(weight := getattr(module, "weight", None), nn.Parameter):
        return int(weight.shape[0]), int(weight.shape[1])
    return None


def linear_weights(model: nn.Module) -> dict[str, LinearWeight]:
    """Return all linear weights of a model by the names of their layers, in the model's order."""
    found: dict[str, LinearWeight] = {}
    # Keyed by the weights themselves: one that a module makes anew at each look may have the address of one before it.
    holders: dict[Any, str] = {}
    for path, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if linear_widths(module) is not None and (first := holders.setdefault(weight, path)) != path:
            found[first] = replace(found[first], twins=(*found[first].twins, module))
        elif (widths := linear_widths(module)) is not None:
            sight = Sight.WEIGHT if _is_router(module) or path.endswith(_TAKEN_FROM_MODULES) else Sight.MODULE
            found[path] = LinearWeight(TrackedLayer(path, *widths), path, module, sight)
        elif _is_router(module) and isinstance(weight, nn.Parameter) and weight.ndim == 2:
            layer = TrackedLayer(path, int(weight.shape[1]), int(weight.shape[0]))
            found[path] = LinearWeight(layer, path, module, Sight.WEIGHT)
        else:
            for fused in fused_weights(module):
                for expert in range(fused.n_experts):
                    name = fused.layer_name(path, expert)
                    layer = TrackedLayer(name, fused.d_in, fused.d_out, expert)
                    found[name] = LinearWeight(layer, path, module, Sight.EXPERTS, fused.n_experts, fused)
    return found


def shares_of_tokens(model: nn.Module) -> dict[str, float]:
    """Return which share of the tokens a layer's products have, by the names of all linear weights: of experts, a part."""
    shares = {}
    for name, weight in linear_weights(model).items():
        routed = experts_per_token(model) if weight.sight is Sight.EXPERTS else None
        shares[name] = 1.0 if routed is None else min(1.0, routed / weight.n_experts)
    return shares


def is_in_block(name: str) -> bool:
    """Whether a module path lies in a repeated transformer block, i.e. has a numbered component (`h.0.attn.c_attn`)."""
    return any(part.isdecimal() for part in name.split("."))


def blocks_of_pictures(model: nn.Module) -> tuple[str, ...]:
    """Return the paths, with a dot, of whole blocks that a text alone passes by."""
    return tuple(f"{path}." for path, module in model.named_modules() if type(module).__name__ in _BLOCKS_OF_PICTURES)


def is_adapter_matrix(name: str) -> bool:
    """Whether a module path is that of a matrix A or B of a LoRA adapter, as peft names them."""
    return not _MATRICES.isdisjoint(name.split("."))


def adapted_layer(name: str) -> str:
    """Return the path of the layer that a matrix of a LoRA adapter stands beside; any other path as it is."""
    parts = name.split(".")
    place = next((place for place, part in enumerate(parts) if part in _MATRICES), len(parts))
    return ".".join(parts[:place])


def in_any_block(name: str) -> str:
    """Return a module path with `*` for every number, the same for all blocks and experts."""
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def select_layers(
    model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = (), *, of_adapter: bool = False
) -> list[TrackedLayer]:
    """Return the tracked layers in the model's order.

    Args:
        model: any module tree.
        include: shell-style patterns over layer names. Empty: every linear weight of the transformer blocks, hence
            neither embeddings nor the LM head; of a model that also sees or hears, those of its language model that read
            text alone.
        exclude: patterns that take layers out again.
        of_adapter: choose among the matrices A and B of a LoRA adapter, which are left out otherwise.

    Raises:
        LayerError: a pattern matches no linear layer, nothing is left, or a block holds experts of an unknown form.
    """
    linear = {
        name: weight.layer for name, weight in linear_weights(model).items() if is_adapter_matrix(name) == of_adapter
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

    scope, passed_by = _language_model(model), blocks_of_pictures(model)
    chosen = [
        layer
        for name, layer in linear.items()
        if (
            any(fnmatchcase(name, pattern) for pattern in include)
            if include
            else _is_tracked_by_default(scope, name) and not name.startswith(passed_by)
        )
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
        _refuse_unknown_experts(model, scope)
    return chosen


def named_layers(model: nn.Module, names: Collection[str]) -> list[TrackedLayer]:
    """Return the layers of these names.

    Raises:
        LayerError: the model has no such linear layer.
    """
    weights = linear_weights(model)
    if missing := [name for name in names if name not in weights]:
        raise LayerError(f"the model has no linear layer {missing[0]!r}; was it saved from another model?")
    return [weights[name].layer for name in names]


@dataclass(frozen=True)
class Coverage:
    """How many of a model's parameters are tracked, and which matrices of its blocks cannot be."""

    tracked: int
    in_blocks: int
    """Parameters of the transformer blocks: of the language model, in a model that also sees or hears."""
    total: int
    beyond_reach: dict[str, int]
    """Numbers of the blocks' matrices that are no linear weights, by their names with `*` for the block."""

    @property
    def share_of_blocks(self) -> float:
        """Tracked parameters as a share of those of the blocks, from 0 to 1; layers outside of blocks are not counted."""
        return min(1.0, self.tracked / self.in_blocks) if self.in_blocks else 0.0

    def __str__(self) -> str:
        said = f"{self.share_of_blocks:.1%} of the blocks' parameters"
        if not self.beyond_reach:
            return said
        left_out = sorted(self.beyond_reach.items(), key=lambda item: -item[1])
        names = ", ".join(f"{name} {size / self.in_blocks:.1%}" for name, size in left_out[:_SHOWN])
        return f"{said}; not linear, hence left out: {names}{' ...' if len(left_out) > _SHOWN else ''}"


def coverage(model: nn.Module, layers: Iterable[TrackedLayer]) -> Coverage:
    """Return how much of a model some layers cover."""
    weights, scope = linear_weights(model), _language_model(model)
    reached = {id(p) for weight in weights.values() for p in weight.module.parameters(recurse=False)}
    reached |= {id(weight.parameter) for weight in weights.values() if weight.fused}
    in_blocks, total = 0, 0
    beyond: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        total += parameter.numel()
        if not _is_in_block_of(scope, name):
            continue
        in_blocks += parameter.numel()
        if id(parameter) not in reached and sum(side > 1 for side in parameter.shape) > 1:
            pattern = in_any_block(name)
            beyond[pattern] = beyond.get(pattern, 0) + parameter.numel()
    return Coverage(sum(layer.d_in * layer.d_out for layer in layers), in_blocks, total, beyond)


def _is_router(module: nn.Module) -> bool:
    """Whether a module chooses experts: it returns more than the product with its weight."""
    return "Router" in type(module).__name__


def _is_in_block_of(scope: str, name: str) -> bool:
    inside = name.removeprefix(scope)
    return name.startswith(scope) and is_in_block(inside) and _OTHER_SENSES.isdisjoint(inside.split("."))


def _is_tracked_by_default(scope: str, name: str) -> bool:
    return _is_in_block_of(scope, name) and not _WITHOUT_GRADIENT.intersection(name.split("."))


def _language_model(model: Any) -> str:
    """Return the path, with a dot, of the language model within a model that also sees or hears; empty if it is the whole."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "get_text_config") or config.get_text_config(decoder=True) is config:
        return ""
    decoder = model.get_decoder()
    return next((f"{path}." for path, module in model.named_modules() if module is decoder and path), "")


def _refuse_unknown_experts(model: nn.Module, scope: str) -> None:
    known = {part for module in model.modules() if fused_weights(module) for part in module.modules()}
    for path, module in model.named_modules():
        if "Expert" not in type(module).__name__ or module in known:
            continue
        for name, parameter in module.named_parameters(path, recurse=False):
            # The kernels of depthwise convolutions are 3-D too, with a side of 1.
            if parameter.ndim >= 2 and 1 not in parameter.shape and _is_in_block_of(scope, name):
                raise LayerError(
                    f"{name} is a fused expert weight of shape {list(parameter.shape)}, of a {type(module).__name__}; how "
                    "that multiplies by it is not known. Name the layers to track in `recipe.include_layers` (for instance "
                    "'*self_attn*')"
                )
