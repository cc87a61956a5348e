"""A CPU that passes for a GPU: its tensors say that they are on cuda:0, and an operation on tensors of both places fails.

What is computed is computed on the CPU, so that results can be compared. Forward-mode differentiation is not followed:
tangents of nothing are made below what can be seen here. `tests/models/two_devices.py` has a device of another kind, in a
process of its own; the ways that the code takes for CUDA alone are taken here.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")
_ATEN = torch.ops.aten
_INDEXING = (_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default)
"""Of a GPU's tensor, indices may be on the CPU."""
_MEMORY = 80 << 30


class _OnGpu(torch.Tensor):
    """A tensor of the CPU, `held`, that passes for one of the GPU."""

    held: torch.Tensor
    device = property(lambda _: GPU)  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]
    is_cpu = property(lambda _: False)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "_OnGpu":
        wrapped = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
        )
        wrapped.held = held
        return wrapped

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *_: object, **__: object) -> Any:
        raise TypeError("a tensor of the GPU has no numpy array: use Tensor.cpu() first")

    @classmethod
    def __torch_dispatch__(cls, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(operation, args, kwargs or {})


class PretendedGpu(TorchDispatchMode):
    """Makes tensors that are asked for on cuda:0 pass for a GPU's."""

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(operation, args, kwargs or {})


def _held(value: Any) -> Any:
    return value.held if isinstance(value, _OnGpu) else value


def _is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _computed(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    on_gpu = any(isinstance(tensor, _OnGpu) for tensor in tensors)
    device = kwargs.get("device")
    known = kwargs if device is None else {**kwargs, "device": CPU if _is_gpu(device) else device}
    if operation is _ATEN._to_copy.default:
        copy = operation(_held(args[0]), **known)
        return _OnGpu(copy) if (on_gpu if device is None else _is_gpu(device)) else copy
    if operation is _ATEN.copy_.default:
        operation(_held(args[0]), _held(args[1]), *args[2:], **known)
        return args[0]
    elsewhere = [tensor for tensor in tensors if not isinstance(tensor, _OnGpu) and tensor.dim()]
    if on_gpu and elsewhere and operation not in _INDEXING:
        raise RuntimeError(f"{operation} of tensors on {GPU} and on the CPU, of the shape {tuple(elsewhere[0].shape)}")
    found = _result(operation, tree_map(_held, args), tree_map(_held, known))
    if operation is _ATEN._local_scalar_dense.default or not (on_gpu if device is None else _is_gpu(device)):
        return found
    wrapped = tree_map(lambda leaf: _OnGpu(leaf) if isinstance(leaf, torch.Tensor) else leaf, found)
    return return_and_correct_aliasing(operation, args, kwargs, wrapped)


def _result(operation: Any, args: Any, kwargs: Any) -> Any:
    if operation in (_ATEN.mm.dtype, _ATEN.bmm.dtype):
        # Products of BF16 with sums in FP32 are a GPU's alone.
        one, other, dtype = args
        return one.to(dtype) @ other.to(dtype)
    return operation(*args, **kwargs)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Let this process and its threads have a GPU that is none."""
    to, run = torch.Tensor.to, threading.Thread.run

    def moved(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        # torch believes that a tensor is where it was, and would do nothing.
        first = args[0] if args else None
        target = kwargs.get(
            "device", first if isinstance(first, str | torch.device) else getattr(first, "device", None)
        )
        if target is None or not (isinstance(tensor, _OnGpu) or isinstance(first, _OnGpu)):
            return to(tensor, *args, **kwargs)
        dtype = kwargs.get("dtype", getattr(first, "dtype", None))
        dtype = next((word for word in args if isinstance(word, torch.dtype)), dtype)
        if isinstance(tensor, _OnGpu) == _is_gpu(target):
            return tensor if dtype is None else to(tensor, dtype)
        return torch.ops.aten._to_copy.default(tensor, device=torch.device(target), dtype=dtype)

    def watched(thread: threading.Thread) -> None:
        torch._C._set_only_lift_cpu_tensors(True)
        with PretendedGpu():
            run(thread)

    import safetensors.torch

    save = safetensors.torch.save
    overwrites = torch.__future__.get_overwrite_module_params_on_conversion()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "_lazy_init", lambda: None)
        patch.setattr(torch.cuda, "device_count", lambda: 1)
        patch.setattr(torch.cuda, "get_device_name", lambda *_: "no GPU")
        patch.setattr(torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=_MEMORY))
        patch.setattr(torch.cuda, "mem_get_info", lambda *_: (_MEMORY, _MEMORY))
        patch.setattr(torch.cuda, "memory_reserved", lambda *_: 0)
        patch.setattr(torch.cuda, "memory_allocated", lambda *_: 0)
        patch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
        patch.setattr(torch.Tensor, "to", moved)
        patch.setattr(torch.Tensor, "cpu", lambda tensor: moved(tensor, CPU))
        patch.setattr(threading.Thread, "run", watched)
        patch.setattr(safetensors.torch, "save", lambda tensors: save({n: _held(t) for n, t in tensors.items()}))
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with PretendedGpu():
                yield
        finally:
            torch._C._set_only_lift_cpu_tensors(False)
            torch.__future__.set_overwrite_module_params_on_conversion(overwrites)
