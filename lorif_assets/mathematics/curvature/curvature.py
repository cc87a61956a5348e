"""What every curvature of a layer can do, whatever its form: hold examples, let go of them, and precondition queries."""

from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar

from jaxtyping import Float
from torch import Tensor

Part_contra = TypeVar("Part_contra", contravariant=True)


class LayerPreconditioner(Protocol):
    """A layer's damped inverse curvature, whatever its form: all that scoring knows of it."""

    def apply(self, gradients: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return, for vec(G_q) of n projected query gradients, what scores stored factors by a dot product."""
        ...


class Curvature(Protocol[Part_contra]):
    """A layer's curvature over some examples, as a state to which parts of the data are added and from which they go.

    A part is what the curvature is made of: a block of gradient factors, or the sums over a shard.
    """

    @property
    def count(self) -> int:
        """Examples that it holds."""
        ...

    def add(self, part: Part_contra) -> Self:
        """Return the curvature with more examples."""
        ...

    def remove(self, part: Part_contra) -> Self:
        """Return the curvature without examples that it holds.

        Raises:
            ValueError: it holds fewer.
        """
        ...

    def refined(self) -> Self:
        """Return a curvature of no examples that describes those of this one better, once they are added to it again."""
        ...

    def preconditioner(self) -> LayerPreconditioner:
        """Return the damped inverse."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return what is stored of it as tensors, by name."""
        ...

    def figures(self) -> Mapping[str, Any]:
        """Return what is stored of it in its row, by column."""
        ...
