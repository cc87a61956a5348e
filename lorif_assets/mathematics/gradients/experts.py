"""Products of experts whose weights are fused in one parameter [experts, O, I] (or [experts, I, O]), and whose rows they are.

Rows are sorted by expert, and multiplied in one product per expert.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lorif_assets.mathematics.matrix_products import product


@dataclass(frozen=True)
class FusedWeight:
    """One fused parameter: its path, the number of experts, each one's widths, and whether one is kept as [I, O]."""

    parameter: str
    """Its path in the module of the experts."""
    n_experts: int
    d_in: int
    d_out: int
    is_transposed: bool

    @property
    def name(self) -> str:
        """The last part of the parameter's path."""
        return self.parameter.rpartition(".")[2]

    def layer_name(self, experts: str, expert: int) -> str:
        """Return the name of one expert's layer, `experts` being the path of the module: `...experts.3.down_proj`."""
        return f"{experts}.{expert}" if self.name == "weight" else f"{experts}.{expert}.{self.name}"

    def of_experts(self, values: Tensor) -> Float[Tensor, "E a b"]:
        """Return the parameter's values, or its gradient, by expert; some keep the experts' rows one below another."""
        return values if values.ndim == 3 else values.unflatten(0, (self.n_experts, -1))

    def values(self, experts: nn.Module) -> Float[Tensor, "E a b"]:
        """Return the weights by expert."""
        return self.of_experts(experts.get_parameter(self.parameter))


@dataclass(frozen=True)
class Routing:
    """Which rows [S, I] of a product are whose: they are sorted by expert, then by token of the batch."""

    tokens: Int[Tensor, " S"]
    """Index of each row's token in the flattened batch [B * T]."""
    sizes: tuple[int, ...]
    """Rows of each expert."""

    @classmethod
    def of(cls, experts: Int[Tensor, "N k"], n_experts: int) -> tuple["Routing", Int[Tensor, " S"]]:
        """Return the routing of N tokens to k experts each, and the order of its rows among the N * k."""
        chosen = experts.flatten()
        order = chosen.argsort(stable=True)
        sizes = torch.bincount(chosen, minlength=n_experts).tolist()
        return cls(order // experts.shape[-1], tuple(sizes)), order

    def leading(self, n_experts: int) -> "Routing":
        """Return the routing to the first experts alone."""
        sizes = self.sizes[:n_experts]
        return Routing(self.tokens[: sum(sizes)], sizes)


@dataclass(frozen=True)
class ExampleRows:
    """The rows of a routing that are no padding, expert by expert and example by example."""

    n_examples: int
    kept: Int[Tensor, " S"] | None
    """Positions of these rows among the routing's; None where they are all of them."""
    sizes: tuple[int, ...]
    """Such rows of each expert."""
    longest: tuple[int, ...]
    """The most such rows of one example, for each expert."""
    examples: Int[Tensor, " S"]
    slots: Int[Tensor, " S"]
    """Of each such row, its example and its place among the rows of this expert and example."""

    @classmethod
    def of(cls, routing: Routing, mask: Bool[Tensor, "B T"]) -> "ExampleRows":
        """Return the rows of the tokens that the mask does not hide."""
        b, t = mask.shape
        mask = mask.to(routing.tokens.device)
        n_experts = len(routing.sizes)
        experts = torch.repeat_interleave(
            torch.arange(n_experts, device=mask.device), torch.tensor(routing.sizes, device=mask.device)
        )
        kept = None if bool(mask.all()) else mask.flatten()[routing.tokens].nonzero().squeeze(1)
        tokens = routing.tokens if kept is None else routing.tokens[kept]
        examples = tokens // t
        group = (experts if kept is None else experts[kept]) * b + examples
        counts = torch.bincount(group, minlength=n_experts * b)
        slots = torch.arange(len(group), device=mask.device) - (counts.cumsum(0) - counts)[group]
        by_expert = counts.view(n_experts, b)
        return cls(
            b,
            kept,
            tuple(by_expert.sum(dim=1).tolist()),
            tuple(by_expert.amax(dim=1).tolist()),
            examples,
            slots,
        )

    def by_expert(self, rows: Float[Tensor, "S w"]) -> Sequence[Float[Tensor, "n w"]]:
        """Return the routing's rows without padding, one tensor for each expert."""
        return torch.split(rows if self.kept is None else rows[self.kept], list(self.sizes))

    def padded(self, expert: int, rows: Float[Tensor, "n w"]) -> Float[Tensor, "B L w"]:
        """Return an expert's rows example by example; an example with fewer than the most is filled with zeros."""
        start, longest = sum(self.sizes[:expert]), self.longest[expert]
        chosen = slice(start, start + self.sizes[expert])
        filled = rows.new_zeros(self.n_examples * longest, rows.shape[1])
        filled.index_copy_(0, self.examples[chosen] * longest + self.slots[chosen], rows)
        return filled.view(self.n_examples, longest, -1)

    def unpadded(self, expert: int, filled: Float[Tensor, "B L w"]) -> Float[Tensor, "n w"]:
        """Return the rows that `padded` was given."""
        start = sum(self.sizes[:expert])
        chosen = slice(start, start + self.sizes[expert])
        return filled[self.examples[chosen], self.slots[chosen]]


RoutedProduct = Callable[[FusedWeight, Routing, Float[Tensor, "S I"], Float[Tensor, "S O"]], Tensor | None]
"""Is shown each product of a forward pass of experts: the weight, the routing, inputs and outputs without bias.

Outputs that it returns take the place of those.
"""


def weighted_sums(
    rows: Float[Tensor, "S O"], order: Int[Tensor, " S"], weights: Float[Tensor, "N k"]
) -> Float[Tensor, "N O"]:
    """Return the weighted sums over a token's experts of rows that are sorted by expert."""
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    weighted = rows * weights.flatten()[order].unsqueeze(1)
    sums: Tensor = weighted[back].unflatten(0, weights.shape).sum(dim=1)
    return sums


def grouped_product(
    x: Float[Tensor, "S I"], weights: Float[Tensor, "E a b"], sizes: tuple[int, ...], *, is_transposed: bool
) -> Float[Tensor, "S O"]:
    """Return the product of each expert's rows with its own, frozen weight [O, I], or [I, O] where it is kept so."""
    products: Tensor = _GroupedLinear.apply(x, weights, sizes, is_transposed)
    return products


class _GroupedLinear(torch.autograd.Function):
    """The product of each expert's rows with its own, frozen weight."""

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "S I"], weight: Float[Tensor, "E a b"], sizes: tuple[int, ...], is_transposed: bool
    ) -> Float[Tensor, "S O"]:
        ctx.save_for_backward(weight)
        ctx.save_for_forward(weight)
        ctx.sizes, ctx.is_transposed = sizes, is_transposed
        return _grouped(x, weight if is_transposed else weight.mT, sizes)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (weight,) = ctx.saved_tensors
        return _grouped(tangents[0], weight if ctx.is_transposed else weight.mT, ctx.sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (weight,) = ctx.saved_tensors
        return _grouped(gradients[0], weight.mT if ctx.is_transposed else weight, ctx.sizes), None, None, None


def _grouped(rows: Float[Tensor, "S a"], matrices: Float[Tensor, "E a b"], sizes: tuple[int, ...]) -> Tensor:
    products = [product(part, matrices[expert]) for expert, part in enumerate(rows.split(sizes)) if len(part)]
    return torch.cat(products) if products else rows.new_zeros(0, matrices.shape[2])
