"""What takes the gradients of a batch as they are collected, layer by layer."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.gradients.layer_calls import TokenCalls

GradientSink = Callable[[str, slice, Float[Tensor, "b d1 d2"]], None]


@runtime_checkable
class TokenSink(Protocol):
    """A sink of gradients that takes those of some layers as the tokens that they are sums over."""

    def __call__(self, layer: str, rows: slice, gradients: Float[Tensor, "b d1 d2"], /) -> None:
        """Take gradients, as any sink does."""
        ...

    def takes_tokens(self, layer: str, tokens: int) -> bool:
        """Return whether a layer's gradients are not to be formed, for examples of this many tokens, padding included."""
        ...

    def take_tokens(self, layer: str, calls: TokenCalls) -> None:
        """Take the projected inputs and output gradients of a whole batch."""
        ...
