"""Products with a weight outside of its module's forward pass: in a router, or where a model takes the weight itself."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_CASTS = frozenset({Tensor.to, Tensor.type, Tensor.float, Tensor.double, Tensor.bfloat16, Tensor.half})
_PRODUCTS = frozenset({torch.matmul, Tensor.matmul, Tensor.__matmul__})

WeightUse = Callable[[str, Tensor, Tensor, bool], Tensor | None]
"""Is shown a product: the layer's name, inputs [*, I], outputs [*, O], and whether these two are transposed.

Outputs that it returns take the place of those.
"""


class WeightUses(TorchFunctionMode):
    """Shows every product x W^T or W x of some weights [O, I], cast to another type or not, while it is entered.

    Args:
        weights: by the names of their layers.
        on_use: is shown the products.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], on_use: WeightUse) -> None:
        super().__init__()
        self._layers = {id(weight): layer for layer, weight in weights.items()}
        self._on_use = on_use
        # An identity is a tensor's own only while the tensor lives.
        self._cast: list[Tensor] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is functional.linear:
            x = args[0] if args else (kwargs or {})["input"]
            weight = args[1] if len(args) > 1 else (kwargs or {})["weight"]
            if layer := self._layers.get(id(weight)):
                return self._shown(layer, x, result, False)
        elif func in _PRODUCTS and (layer := self._layers.get(id(args[0]))):
            return self._shown(layer, args[1], result, True)
        elif func in _CASTS and (layer := self._layers.get(id(args[0]))) and result is not args[0]:
            self._layers[id(result)] = layer
            self._cast.append(result)
        return result

    def _shown(self, layer: str, x: Tensor, result: Tensor, is_transposed: bool) -> Tensor:
        other = self._on_use(layer, x, result, is_transposed)
        return result if other is None else other
