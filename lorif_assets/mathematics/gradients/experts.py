"""Mixtures of experts whose weights are fused: one parameter [experts, O, I] (or [experts, I, O]) for all of them.

What a fused forward pass multiplies is hidden in a kernel, of which there are several. So while gradients are collected,
the experts' forward pass is the one below, the same for every model: rows sorted by expert, one product per expert. It
follows the contract of transformers' own interchangeable experts' functions (`_experts_implementation`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lorif_assets.mathematics.matrix_products import product

DENSE_EXPERTS = "Llama4TextExperts"
"""Experts that each get every token, scaled by its routing weight, which is 0 where the token is not routed there."""
EXPERTS_WITH_IDENTITIES = "LongcatFlashExperts"
"""Experts of which the last ones have no weights: the tokens that are routed there pass as they are."""
_ROUTED_TO = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk")


@dataclass(frozen=True)
class FusedWeight:
    """One fused parameter: its name, the number of experts, each one's widths, and whether one is kept as [I, O]."""

    name: str
    n_experts: int
    d_in: int
    d_out: int
    is_transposed: bool

    def layer_name(self, experts: str, expert: int) -> str:
        """Return the name of one expert's layer, `experts` being the path of the module: `...experts.3.down_proj`."""
        return f"{experts}.{expert}.{self.name}"


def fused_weights(module: nn.Module) -> tuple[FusedWeight, ...]:
    """Return a module's fused weights in the order in which they are multiplied; empty if it is not known how it does that."""
    if type(module).__name__ == DENSE_EXPERTS:
        first, is_transposed = "gate_up_proj", True
    elif type(module).__name__ == EXPERTS_WITH_IDENTITIES:
        first, is_transposed = "gate_up_proj", False
    # What transformers sets on every module of experts whose forward pass it can interchange.
    elif isinstance(getattr(module, "has_gate", None), bool) and hasattr(module, "_apply_gate"):
        first, is_transposed = "gate_up_proj" if module.has_gate else "up_proj", bool(module.is_transposed)
    else:
        return ()
    weights = {name: getattr(module, name, None) for name in (first, "down_proj")}
    fused = {name: weight for name, weight in weights.items() if isinstance(weight, nn.Parameter) and weight.ndim == 3}
    if fused.keys() != weights.keys():
        return ()
    # Where some experts are identities, one of the weights may have rows for them that nothing multiplies.
    n_experts = min(len(weight) for weight in fused.values())
    found = []
    for name, weight in fused.items():
        _, rows, columns = weight.shape
        d_in, d_out = (rows, columns) if is_transposed else (columns, rows)
        found.append(FusedWeight(name, n_experts, d_in, d_out, is_transposed))
    return tuple(found)


def experts_per_token(model: Any) -> int | None:
    """Return to how many experts of a block each token is routed, as the configuration says; None where it does not."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    return next((found for name in _ROUTED_TO if isinstance(found := getattr(text, name, None), int)), None)


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


def experts_forward(module: nn.Module, on_product: RoutedProduct) -> Callable[..., Tensor]:
    """Return a forward pass that computes what the module's own does, and shows its products.

    Args:
        module: experts with `fused_weights`, which are frozen.
        on_product: is shown each product.
    """
    first, second = fused_weights(module)
    made: Any = module

    def multiplied(weight: FusedWeight, routing: Routing, x: Tensor) -> Tensor:
        y: Tensor = _GroupedLinear.apply(x, getattr(module, weight.name), routing.sizes, weight.is_transposed)
        other = on_product(weight, routing, x, y)
        return y if other is None else other

    def routed(hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        routing, order = Routing.of(top_k_index, first.n_experts)
        of_row = top_k_index.flatten()[order]
        y = multiplied(first, routing, hidden_states[routing.tokens])
        if made.has_bias:
            y = y + getattr(module, f"{first.name}_bias")[of_row]
        y = multiplied(second, routing, made._apply_gate(y) if made.has_gate else made.act_fn(y))
        if made.has_bias:
            y = y + made.down_proj_bias[of_row]
        if getattr(made, "has_post_expert_norm", False):
            y = made.post_expert_norm(y)
        return _summed(y, order, top_k_weights).to(hidden_states.dtype)

    def with_identities(hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        routing, order = Routing.of(top_k_index, made.total_experts)
        x, of_experts = hidden_states[routing.tokens], routing.leading(first.n_experts)
        multiplied_rows = len(of_experts.tokens)
        gate, up = multiplied(first, of_experts, x[:multiplied_rows]).chunk(2, dim=-1)
        y = multiplied(second, of_experts, made.act_fn(gate) * up)
        return _summed(torch.cat([y, x[multiplied_rows:]]), order, top_k_weights).to(hidden_states.dtype)

    def dense(hidden_states: Tensor) -> Tensor:
        n = hidden_states.shape[0] // first.n_experts
        routing = Routing(torch.arange(n, device=hidden_states.device).repeat(first.n_experts), (n,) * first.n_experts)
        gate, up = multiplied(first, routing, hidden_states).chunk(2, dim=-1)
        return multiplied(second, routing, up * made.act_fn(gate))

    forms: Mapping[str, Callable[..., Tensor]] = {DENSE_EXPERTS: dense, EXPERTS_WITH_IDENTITIES: with_identities}
    return forms.get(type(module).__name__, routed)


def _summed(
    rows: Float[Tensor, "S O"], order: Int[Tensor, " S"], weights: Float[Tensor, "N k"]
) -> Float[Tensor, "N O"]:
    """Return the weighted sums over a token's experts of rows that are sorted by expert."""
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    weighted = rows * weights.flatten()[order].unsqueeze(1)
    sums: Tensor = weighted[back].unflatten(0, weights.shape).sum(dim=1)
    return sums


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
