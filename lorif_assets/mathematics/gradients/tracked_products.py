"""Where a model multiplies by the weights of its tracked layers, and how each product is seen, or changed, as it is made."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lorif_assets.mathematics.gradients.expert_forms import experts_forward, gates, with_tokens
from lorif_assets.mathematics.gradients.expert_layers import ExpertLayers
from lorif_assets.mathematics.gradients.experts import FusedWeight, Routing
from lorif_assets.mathematics.gradients.layers import LayerError, Sight, linear_weights
from lorif_assets.mathematics.gradients.projection import LayerProjection
from lorif_assets.mathematics.gradients.replaced_forward import replaced_forward
from lorif_assets.mathematics.gradients.weight_uses import WeightUses

ProductSeen = Callable[[str, Tensor, Tensor, bool], Tensor | None]
"""Is shown a product: the layer's name, inputs, outputs, and whether these two are transposed. It may return other outputs."""

RoutedProductMade = Callable[[str, FusedWeight, Routing, Tensor, Callable[[], Tensor]], Tensor]
"""Makes a product of experts: the path of their module, the weight, the routing, the inputs, and what multiplies them."""


class TrackedProducts:
    """The products of a model with the weights of its tracked layers.

    Projections are kept on the layers' devices, in FP32 (FP64 for an FP64 layer).

    Raises:
        LayerError: a projection names a layer that the model does not have, or has in other widths.
    """

    def __init__(self, model: nn.Module, projections: Iterable[LayerProjection]) -> None:
        weights, modules = linear_weights(model), dict(model.named_modules())
        self.projections: dict[str, LayerProjection] = {}
        self.types: dict[str, torch.dtype] = {}
        self.n_experts: dict[str, int] = {}
        """Of layers that are experts, between how many the tokens are shared out."""
        self._linear: dict[str, tuple[nn.Module, ...]] = {}
        self._watched: dict[str, nn.Parameter] = {}
        self._experts: dict[str, nn.Module] = {}
        self._gates = gates(model)
        self.experts: dict[tuple[str, str], ExpertLayers] = {}
        """By the path of their module and the parameter in it."""
        for projection in projections:
            name = projection.layer.name
            weight = weights.get(name)
            if weight is None and name not in modules:
                raise LayerError(f"the model has no layer {name!r}; was it saved from another model?")
            expected = (projection.layer.d_in, projection.layer.d_out)
            found = (weight.layer.d_in, weight.layer.d_out) if weight else None
            if weight is None or found != expected:
                held_by = type(weight.module if weight else modules[name]).__name__
                raise LayerError(
                    f"layer {name!r} was expected to have (input, output) widths {expected}, "
                    f"but is a {held_by} with {found or 'none'}; was it saved from another model?"
                )
            parameter = next(weight.module.parameters())
            self.types[name] = torch.float64 if parameter.dtype == torch.float64 else torch.float32
            self.projections[name] = projection.to(parameter.device, self.types[name])
            if weight.sight is Sight.MODULE:
                self._linear[name] = (weight.module, *weight.twins)
            elif weight.sight is Sight.WEIGHT:
                self._watched[name] = weight.module.get_parameter("weight")
            elif weight.fused is not None and projection.layer.expert is not None:
                self._experts[weight.path] = weight.module
                self.n_experts[name] = weight.n_experts
                key = weight.path, weight.fused.parameter
                layers = self.experts.setdefault(key, ExpertLayers({}, self.types[name], parameter.device))
                layers.projections[projection.layer.expert] = self.projections[name]

    @contextmanager
    def followed(self, on_product: ProductSeen, on_routed_product: RoutedProductMade) -> Iterator[None]:
        """Show the products of modules and of experts in the model's forward passes, until the context is left."""
        with ExitStack() as stack:
            for name, module in ((name, module) for name, modules in self._linear.items() for module in modules):
                stack.callback(module.register_forward_hook(_forward_hook(name, on_product)).remove)
            for gate in self._gates if self._experts else ():
                stack.callback(gate.register_forward_hook(with_tokens).remove)
            for path, module in self._experts.items():
                forward = experts_forward(module, partial(on_routed_product, path))
                stack.enter_context(replaced_forward(module, forward))
            yield

    def in_forward_pass(self, on_product: ProductSeen) -> AbstractContextManager[object]:
        """Return the context of a forward pass: in it, products with weights outside of their modules are shown too."""
        return WeightUses(self._watched, on_product) if self._watched else nullcontext()


def rows_by_example(x: Tensor, mask: Bool[Tensor, "B T"], layer: str) -> Float[Tensor, "B T width"]:
    """Return a layer's rows by example of the batch with this mask.

    Some models flatten batch and tokens before a linear layer, or have heads of 1.

    Raises:
        LayerError: the rows are not the batch's tokens.
    """
    n_examples, n_tokens = mask.shape
    if x.shape[:-1].numel() == n_examples * n_tokens and x.shape[0] in (n_examples, n_examples * n_tokens):
        return x.reshape(n_examples, n_tokens, -1)
    raise LayerError(
        f"layer {layer!r} got a tensor of shape {list(x.shape)} for a batch of {n_examples} examples of {n_tokens} "
        "tokens: its rows are not the batch's tokens (a routed expert?). Take it out with `recipe.exclude_layers`"
    )


def _forward_hook(layer: str, on_product: ProductSeen) -> Any:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        return on_product(layer, inputs[0], output, False)

    return hook
