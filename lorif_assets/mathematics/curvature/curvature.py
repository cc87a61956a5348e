"""What every curvature of a layer can do, whatever its form: add examples, remove them, and precondition queries."""

from collections.abc import Mapping
from typing import Any, Protocol, Self, TypeVar

from jaxtyping import Float
from torch import Tensor

Part_contra = TypeVar("Part_contra", contravariant=True)


class LayerPreconditioner(Protocol):
    """A layer's damped inverse curvature, whatever its form: all that scoring knows of it."""

    def apply(self, gradients: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return, for vec(G_q) of n projected query gradients, the vectors that score stored factors by a dot product."""
        ...

    def inverse(self, gradients: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
        """Return H^-1 g for vec(G) of n projected gradients, in their own axes: what scores gradients by a dot product."""
        ...

    @property
    def axis_sizes(self) -> Float[Tensor, "d1 d2"] | None:
        """How large training gradients are along the axes of stored factors; None where factors are not whitened."""
        ...

    @property
    def norm_weight(self) -> float:
        """Mean g^T H^-1 g of the training examples over the mean squared norm of their stored gradients; 0 without any.

        Both means follow from the curvature. It turns squared norms into what examples' influence on themselves would be
        if gradients differed in size alone (docs/method.md: relative influence).
        """
        ...


class Curvature(Protocol[Part_contra]):
    """A layer's curvature over some examples, as a state to which parts of the data can be added, and removed again.

    A part is what the curvature is computed from: a block of gradient factors, or the sums over a shard.
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

    def exchange(self, removed: Part_contra, added: Part_contra) -> Self:
        """Return the curvature with some examples in place of others that it holds, in less time than both take apart.

        Raises:
            ValueError: it holds fewer than those.
        """
        ...

    def refined(self) -> Self:
        """Return a curvature of no examples in a better basis for those of this one, which have to be added to it again."""
        ...

    def preconditioner(self) -> LayerPreconditioner:
        """Return the damped inverse."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """Return its stored tensors, by name."""
        ...

    def figures(self) -> Mapping[str, Any]:
        """Return the figures stored in its row, by column."""
        ...
