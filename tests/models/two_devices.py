"""A second device for a machine that has none: tensors that say they are on `card:0`, and are on no other.

What two GPUs refuse is refused here, whatever the operation: tensors of both devices in one. The numbers are the CPU's.
Torch registers such a device for the whole process, so this runs in one of its own.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

CARD = "card:0"
_aten = torch.ops.aten
_MOVES = {_aten._to_copy.default, _aten.copy_.default}


_kernels = torch.library.Library("aten", "IMPL")


class _Card(_DummyBackendModule):
    """It has no random numbers, so their state is empty."""

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        return torch.empty(0, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        pass


def register_the_card() -> None:
    _setup_privateuseone_for_python_backend("card", _Card())
    # Torch makes tensors of the lists that index others by itself, and asks the device for memory and for the copy.
    _kernels.impl("empty_strided", _memory_of_the_card, "PrivateUse1")
    _kernels.impl("_copy_from", _copied_to_the_card, "PrivateUse1")


def _memory_of_the_card(size: list[int], stride: list[int], **options: Any) -> "OnCard":
    return OnCard(torch.empty_strided(size, stride, dtype=options["dtype"]))


def _copied_to_the_card(source: torch.Tensor, target: "OnCard", non_blocking: bool = False) -> "OnCard":
    target.numbers.copy_(_numbers(source))
    return target


class OnCard(torch.Tensor):
    """A tensor on the card; its numbers are in a tensor of the CPU."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> "OnCard":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            numbers.size(),
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=CARD,
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


class TwoDevices(TorchDispatchMode):
    """Also new tensors are put on the card where that is asked for."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(func, args, kwargs or {})


def computed(func: torch._ops.OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Compute on the CPU's numbers, and put the result where the operation's tensors are."""
    with TwoDevices():
        # Without autograd an operation made of others comes as it is.
        result = func.decompose(*args, **kwargs)
    if result is not NotImplemented:
        return result
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    on_card = [tensor for tensor in tensors if isinstance(tensor, OnCard)]
    # As on a GPU, single numbers of the CPU go with everything.
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, OnCard) and tensor.ndim]
    if on_card and elsewhere and func not in _MOVES:
        raise RuntimeError(f"{func} of tensors on {CARD} and cpu, of shapes {[list(t.shape) for t in tensors]}")
    wanted = kwargs.get("device")
    to_card = wanted.type == "card" if isinstance(wanted, torch.device) else bool(on_card)
    options = {**kwargs, "device": torch.device("cpu")} if wanted is not None else kwargs
    bare, bare_options = tree_map(_numbers, (args, options))
    result = func(*bare, **bare_options)
    if func._schema.is_mutable:
        return kwargs.get("out", args[0] if args else None)
    return (
        tree_map(lambda leaf: OnCard(leaf) if isinstance(leaf, torch.Tensor) else leaf, result) if to_card else result
    )


def _numbers(leaf: Any) -> Any:
    return leaf.numbers if isinstance(leaf, OnCard) else leaf
