"""How mixtures of experts multiply by fused weights: the known forms, each with a forward pass that shows its products.

What a fused forward pass multiplies is hidden in a kernel, of which there are several. So while gradients are collected,
the experts' forward pass is one of those below: rows sorted by expert, one product per expert. The common one follows the
contract of transformers' own interchangeable experts' functions (`_experts_implementation`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lorif_assets.mathematics.gradients.expert_products import grouped_product, token_rows, weighted_sums
from lorif_assets.mathematics.gradients.experts import FusedWeight, RoutedProduct, Routing, as_it_is

_DENSE = "Llama4TextExperts"
"""Experts that each get every token, scaled by its routing weight, which is 0 where the token is not routed there."""
_WITH_IDENTITIES = "LongcatFlashExperts"
"""Experts of which the last ones have no weights: the tokens that are routed there pass as they are."""
_IN_ROWS = "DbrxExperts"
"""Experts whose weights lie one below another in matrices [experts * width, hidden]."""
_PARALLEL = "JetMoeParallelExperts"
"""One weight of experts, called with rows that a gate sorted and the number of each expert's."""
_GATE = "JetMoeTopKGating"
_ROUTED_TO = ("num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k")


class Multiply(Protocol):
    """Multiplies rows by a fused weight, and adds biases [E, O] of the experts if there are any."""

    def __call__(
        self,
        weight: FusedWeight,
        routing: Routing,
        x: Float[Tensor, "S I"],
        biases: Float[Tensor, "E O"] | None = None,
        /,
    ) -> Float[Tensor, "S O"]:
        """Return the products."""
        ...


def fused_weights(module: nn.Module) -> tuple[FusedWeight, ...]:
    """Return a module's fused weights in the order in which they are multiplied; empty if it is not known how it does that."""
    kind = type(module).__name__
    if kind == _PARALLEL:
        return _by_shape(module, ("weight",), is_transposed=False)
    if kind == _IN_ROWS:
        return _in_rows(module)
    if kind in (_DENSE, _WITH_IDENTITIES):
        return _by_shape(module, ("gate_up_proj", "down_proj"), is_transposed=kind == _DENSE)
    if hasattr(module, "_apply_gate"):
        # What transformers sets on every module of experts whose forward pass it can interchange; others are of the plain form.
        names = ("gate_up_proj" if getattr(module, "has_gate", True) else "up_proj", "down_proj")
        return _by_shape(module, names, is_transposed=bool(getattr(module, "is_transposed", False)))
    return ()


def experts_per_token(model: Any) -> int | None:
    """Return to how many experts of a block each token is routed, as the configuration says; None where it does not."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    parts = (text, getattr(text, "ffn_config", None))
    return next((n for part in parts for name in _ROUTED_TO if isinstance(n := getattr(part, name, None), int)), None)


def experts_forward(module: nn.Module, on_product: RoutedProduct = as_it_is) -> Callable[..., Tensor]:
    """Return a forward pass that computes what the module's own does, and shows its products.

    Args:
        module: experts with `fused_weights`, which are frozen.
        on_product: makes each product.
    """

    def multiply(weight: FusedWeight, routing: Routing, x: Tensor, biases: Tensor | None = None) -> Tensor:
        def product() -> Tensor:
            values, is_transposed = weight.values(module), weight.is_transposed
            return grouped_product(x, values if is_transposed else values.mT, routing.sizes, biases)

        # Modes that watch the functions of a forward pass have nothing to see here, and each function would call them.
        with torch._C.DisableTorchFunction():
            return on_product(weight, routing, x, product)

    forms: dict[str, Callable[[Any, Multiply], Callable[..., Tensor]]] = {
        _DENSE: _dense,
        _WITH_IDENTITIES: _with_identities,
        _IN_ROWS: _of_rows,
        _PARALLEL: _parallel,
    }
    return forms.get(type(module).__name__, _routed)(module, multiply)


def trial_arguments(module: nn.Module, tokens: int) -> tuple[Any, ...]:
    """Return what experts may be called with: random rows, of so many tokens for each expert."""
    first, *_ = fused_weights(module)
    weight = first.values(module)
    generator = torch.Generator().manual_seed(0)
    n = tokens * first.n_experts
    hidden = torch.randn(n, first.d_in, generator=generator).to(weight.device, weight.dtype)
    if type(module).__name__ == _DENSE:
        return (hidden,)
    if type(module).__name__ == _PARALLEL:
        return hidden, SortedSizes([tokens] * first.n_experts, torch.arange(n, device=weight.device))
    chosen = torch.rand(n, first.n_experts, generator=generator).topk(min(2, first.n_experts))
    return hidden, chosen.indices.to(weight.device), chosen.values.to(weight.device, weight.dtype)


class SortedSizes(list[int]):
    """The rows of each expert, as a gate gives them, with the token of each row."""

    def __init__(self, sizes: Sequence[int], tokens: Int[Tensor, " S"]) -> None:
        super().__init__(sizes)
        self.tokens = tokens


def gates(model: nn.Module) -> list[nn.Module]:
    """Return the modules whose outputs `with_tokens` changes, so that experts which are called apart know their tokens."""
    return [module for module in model.modules() if type(module).__name__ == _GATE]


def with_tokens(_gate: nn.Module, _inputs: object, output: Any) -> Any:
    """Add the rows' tokens to a gate's sizes: a forward hook."""
    order, tokens, weights, sizes, logits = output
    return order, tokens, weights, SortedSizes(sizes, tokens), logits


def _by_shape(module: nn.Module, names: Sequence[str], *, is_transposed: bool) -> tuple[FusedWeight, ...]:
    weights = {name: getattr(module, name, None) for name in names}
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


def _in_rows(module: Any) -> tuple[FusedWeight, ...]:
    n, width, hidden = module.num_experts, module.ffn_hidden_size, module.hidden_size
    return (
        FusedWeight("mlp.w1", n, hidden, width, is_transposed=False),
        FusedWeight("mlp.v1", n, hidden, width, is_transposed=False),
        FusedWeight("mlp.w2", n, width, hidden, is_transposed=True),
    )


def _routed(module: Any, multiply: Multiply) -> Callable[..., Tensor]:
    first, second = fused_weights(module)

    def forward(hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        routing, order = Routing.of(top_k_index, first.n_experts)
        biases = [getattr(module, f"{weight.name}_bias", None) for weight in (first, second)]
        y = multiply(first, routing, token_rows(hidden_states, order), biases[0])
        activated = module._apply_gate(y) if getattr(module, "has_gate", True) else module.act_fn(y)
        y = multiply(second, routing, activated, biases[1])
        if getattr(module, "has_post_expert_norm", False):
            y = module.post_expert_norm(y)
        return weighted_sums(y, order, top_k_weights).to(hidden_states.dtype)

    return forward


def _with_identities(module: Any, multiply: Multiply) -> Callable[..., Tensor]:
    first, second = fused_weights(module)

    def forward(hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        routing, order = Routing.of(top_k_index, module.total_experts)
        x, of_experts = token_rows(hidden_states, order), routing.leading(first.n_experts)
        multiplied_rows = len(of_experts.tokens)
        gate, up = multiply(first, of_experts, x[:multiplied_rows]).chunk(2, dim=-1)
        y = multiply(second, of_experts, module.act_fn(gate) * up)
        return weighted_sums(torch.cat([y, x[multiplied_rows:]]), order, top_k_weights).to(hidden_states.dtype)

    return forward


def _dense(module: Any, multiply: Multiply) -> Callable[..., Tensor]:
    first, second = fused_weights(module)

    def forward(hidden_states: Tensor) -> Tensor:
        n = hidden_states.shape[0] // first.n_experts
        rows = torch.arange(n * first.n_experts, device=hidden_states.device)
        routing = Routing(rows % n, rows // n, first.n_experts)
        gate, up = multiply(first, routing, hidden_states).chunk(2, dim=-1)
        return multiply(second, routing, up * module.act_fn(gate))

    return forward


def _of_rows(module: Any, multiply: Multiply) -> Callable[..., Tensor]:
    gate, up, down = fused_weights(module)

    def forward(hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        routing, order = Routing.of(top_k_index, gate.n_experts)
        x = token_rows(hidden_states.reshape(-1, gate.d_in), order)
        y = multiply(down, routing, module.mlp.activation_fn(multiply(gate, routing, x)) * multiply(up, routing, x))
        return weighted_sums(y, order, top_k_weights).view(len(hidden_states), -1, gate.d_in)

    return forward


def _parallel(module: nn.Module, multiply: Multiply) -> Callable[..., Tensor]:
    (weight,) = fused_weights(module)

    def forward(inputs: Tensor, expert_size: SortedSizes) -> Tensor:
        # The gate sorts by expert alone.
        tokens, sizes = expert_size.tokens, torch.tensor(expert_size, device=inputs.device)
        experts = torch.repeat_interleave(torch.arange(len(sizes), device=inputs.device), sizes)
        order = (experts * (len(tokens) + 1) + tokens).argsort()
        y = multiply(weight, Routing(tokens[order], experts, weight.n_experts), inputs[order])
        return y[order.argsort()]

    return forward
