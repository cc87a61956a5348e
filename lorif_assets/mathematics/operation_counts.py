"""What a computation asks of a device: operations, multiplications by number type, bytes moved, copies to it and from it.

Counted under torch's dispatcher, which sees every operation whatever its tensors hold: on the meta device no number is
computed, and a model of any size is counted in seconds. An operation that needs a number on the host fails there.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


@dataclass(frozen=True, kw_only=True)
class DeviceRates:
    """What a device does in a second: floating point operations by number type, bytes of its memory, operations started."""

    flops: Mapping[str, float]
    bytes: float
    operations: float


H200 = DeviceRates(
    flops={"bfloat16": 790e12, "float16": 790e12, "tf32": 412e12, "float32": 51e12, "float64": 60e12},
    bytes=4.0e12,
    operations=2.5e5,
)
"""Of an NVIDIA H200: products measured (those in FP64 as published), memory at 5 / 6 of its peak, 4 us per operation."""


@dataclass(frozen=True)
class OperationCost:
    """Operations by name, floating point operations by number type, and the bytes that operations read and write."""

    operations: Mapping[str, int]
    flops: Mapping[str, int]
    bytes: int

    @property
    def all_flops(self) -> int:
        """Floating point operations of all types."""
        return sum(self.flops.values())

    def seconds(self, rates: DeviceRates) -> float:
        """Return how long a device takes, if products and memory wait for each other, and the host is never late by more."""
        products = sum(count / rates.flops[name] for name, count in self.flops.items())
        return max(products + self.bytes / rates.bytes, sum(self.operations.values()) / rates.operations)


_NO_WORK = frozenset({"detach", "_unsafe_view", "scalar_tensor", "empty", "expand"})


class OperationCounts(TorchDispatchMode):
    """Counts what runs inside. Views cost nothing; `uploads` has the shapes and types of what came from the host."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads: list[tuple[tuple[int, ...], torch.dtype]] = []
        self._operations: Counter[str] = Counter()
        self._flops: Counter[str] = Counter()
        self._bytes = 0

    @property
    def cost(self) -> OperationCost:
        """What was counted so far."""
        return OperationCost(dict(self._operations), dict(self._flops), self._bytes)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        packet = func._overloadpacket
        name = str(packet).removeprefix("aten.")
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        results = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        if name in {"_to_copy", "copy_"} and {t.device.type for t in tensors} != {t.device.type for t in results}:
            self.uploads.extend((tuple(t.shape), t.dtype) for t in tensors if t.device.type == "cpu")
        if func.is_view or name in _NO_WORK:
            return found
        self._operations[name] += 1
        self._bytes += sum(t.numel() * t.element_size() for t in (*tensors, *results))
        if packet in flop_registry:
            self._flops[_number_type(tensors)] += int(flop_registry[packet](*args, **kwargs, out_val=found))
        return found


def _number_type(factors: list[Tensor]) -> str:
    name = str(factors[-1].dtype).removeprefix("torch.")
    return "tf32" if name == "float32" and torch.backends.cuda.matmul.fp32_precision == "tf32" else name
