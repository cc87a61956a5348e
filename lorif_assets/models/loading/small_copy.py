"""A small model of a checkpoint's architecture, with random weights: what it does, `lorif doctor` can try in a second."""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lorif_assets.models.loading.model_class import language_model_class

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

_MOST_PARAMETERS = 300_000_000
_DEPTHS = (4, 2, 1)
_MOST_EXPERTS = 8
_LONGEST_VOCABULARY = 1_024
_OF_DEPTH = ("num_hidden_layers", "depth")
_OF_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
_SPECIAL_TOKENS = {"pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}


@dataclass(frozen=True)
class SmallCopy:
    """A small model, and whether it has the whole configuration or fewer layers, experts and tokens."""

    model: "PreTrainedModel"
    is_whole: bool


def small_copy(config: "PreTrainedConfig", *, trust_remote_code: bool) -> SmallCopy | None:
    """Return a small model of a configuration that transformers can build, or None if it cannot be made small enough."""
    import torch

    auto = language_model_class(config)
    for depth in (None, *_DEPTHS):
        try:
            small = copy.deepcopy(config) if depth is None else _cut(config, depth)
            small.dtype = torch.float32
            with torch.device("meta"):
                size = auto.from_config(small, trust_remote_code=trust_remote_code).num_parameters()
            if size <= _MOST_PARAMETERS:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    model = auto.from_config(small, trust_remote_code=trust_remote_code)
                return SmallCopy(model.eval(), depth is None)
        # What a configuration does not let be cut is no fault of the checkpoint.
        except Exception:
            return None
    return None


def _cut(config: "PreTrainedConfig", depth: int) -> "PreTrainedConfig":
    small = copy.deepcopy(config)
    for part in (small, *(getattr(small, name) for name in small.sub_configs)):
        for name in _OF_DEPTH:
            before = getattr(part, name, None)
            if not isinstance(before, int) or before <= depth:
                continue
            for field, value in vars(part).items():
                # One entry for each layer.
                if isinstance(value, list) and len(value) == before:
                    setattr(part, field, value[:depth])
            setattr(part, name, depth)
        for name in _OF_EXPERTS:
            if isinstance(getattr(part, name, None), int):
                setattr(part, name, min(getattr(part, name), _MOST_EXPERTS))
        if (getattr(part, "vocab_size", None) or 0) > _LONGEST_VOCABULARY:
            part.vocab_size = _LONGEST_VOCABULARY
            for name, token in _SPECIAL_TOKENS.items():
                if getattr(part, name, None) is not None:
                    setattr(part, name, token)
    return small
