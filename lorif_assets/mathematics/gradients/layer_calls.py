"""What a model's tracked layers multiply in the two passes of a batch: inputs and output gradients, call by call."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import Lock

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from lorif_assets.mathematics.gradients.contraction import BY_TOKEN, Contraction
from lorif_assets.mathematics.gradients.expert_layers import ExpertLayers, RoutedCall
from lorif_assets.mathematics.gradients.experts import FusedWeight, Routing
from lorif_assets.mathematics.gradients.layers import LayerError
from lorif_assets.mathematics.gradients.projection import LayerProjection, projected
from lorif_assets.mathematics.gradients.tracked_products import TrackedProducts, rows_by_example

TokenCalls = Sequence[tuple[Float[Tensor, "B T d1"], Float[Tensor, "B T d2"]]]
"""A layer's inputs and output gradients, one pair per call; a side is projected if that precedes the sum over tokens."""

TokenObserver = Callable[[str, TokenCalls], None]

ExpertObserver = Callable[[ExpertLayers, Sequence[RoutedCall]], None]
"""Is shown the calls of all tracked experts of one weight together."""

_FusedName = tuple[str, str]
"""The path of a module of experts, and the parameter in it."""


class LayerCalls:
    """Keeps the tracked layers' inputs until their output gradients arrive, and shows both to an observer.

    Projections and products are in FP32 (FP64 for an FP64 layer), on the layer's device.

    Raises:
        LayerError: a projection names a layer that the model does not have, or has in other widths.
    """

    def __init__(self, model: nn.Module, projections: Iterable[LayerProjection]) -> None:
        self._products = TrackedProducts(model, projections)
        self.projections, self.types = self._products.projections, self._products.types
        self.n_experts = self._products.n_experts
        self._mask = torch.empty(0, 0, dtype=torch.bool)
        self._observer: TokenObserver = _nothing
        self._expert_observer: ExpertObserver = _nothing
        self._orders: Mapping[str, Contraction] = {}
        self._seen: set[str] = set()
        self._calls: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._routed_calls: dict[_FusedName, list[RoutedCall]] = {}
        self._routed: set[_FusedName] = set()
        self._open_calls: Counter[str | _FusedName] = Counter()
        # Autograd runs a thread per device; observers are called by one at a time.
        self._turn = Lock()

    def followed(self) -> AbstractContextManager[None]:
        """Follow the layers' calls in the model's forward passes, until the context is left."""
        return self._products.followed(self._follow, self._on_routed_product)

    def in_forward_pass(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass: in it, weights are watched that are used outside of their modules."""
        return self._products.in_forward_pass(self._follow)

    def start(
        self,
        mask: Bool[Tensor, "B T"],
        observer: TokenObserver,
        expert_observer: ExpertObserver,
        orders: Mapping[str, Contraction],
    ) -> None:
        """Begin with a batch, padded on the right.

        Args:
            mask: its attention mask.
            observer: is shown each other layer's calls once, during the backward pass.
            expert_observer: is shown the calls of experts.
            orders: of layers, on which sides their calls are projected; by default on both.
        """
        self._mask, self._orders = mask, orders
        self._observer, self._expert_observer = observer, expert_observer
        self._seen, self._calls, self._open_calls = set(), {}, Counter()
        self._routed_calls, self._routed = {}, set()

    @contextmanager
    def of_chunk(self, mask: Bool[Tensor, "b t"], observer: TokenObserver) -> Iterator[None]:
        """Show the calls of both passes over a part of the tokens to another observer, until the context is left."""
        before = self._mask, self._observer
        self._mask, self._observer = mask, observer
        try:
            yield
            self._show_waiting()
        finally:
            self._mask, self._observer = before

    def finish(self, *, are_all_reached: bool = True) -> None:
        """Show what is left to show after both passes; layers without a gradient too, where not all need be reached.

        Raises:
            LayerError: a layer was not called, or the loss does not depend on it.
        """
        self._show_waiting()
        for key in self._routed:
            # The loss does not depend on them.
            if not self._seen.issuperset(self._products.experts[key].names):
                self._show_experts(key)
        missing = [name for name in self.projections if name not in self._seen]
        if not are_all_reached:
            for layer in missing:
                self._observer(layer, [])
        elif missing:
            raise LayerError(
                f"layer {missing[0]!r} got no gradient ({len(missing)} such): the forward pass does not call it, or "
                "the loss does not depend on it. Take it out with `recipe.exclude_layers`"
            )

    def _follow(self, name: str, x: Tensor, output: Tensor, is_transposed: bool) -> None:
        """Keep a call's input, projected or not, until its output's gradient arrives."""
        if not output.requires_grad:
            return
        x = x.mT if is_transposed else x
        # A layer on another device moves its input there itself, after this hook.
        kept = self._kept_input(name, self._per_example(x.detach(), name).to(output.device))
        self._open_calls[name] += 1

        def on_output_gradient(dy: Tensor | None) -> None:
            if dy is None:
                raise LayerError(
                    f"no gradient reaches layer {name!r}: what is behind it multiplies in a way that has no backward pass, as "
                    "kernels for quantised weights do"
                )
            dy = self._per_example(dy.mT if is_transposed else dy, name)
            self._close(name, kept, self._projected_gradient(name, dy))

        output.register_hook(on_output_gradient)

    def _on_routed_product(
        self, path: str, weight: FusedWeight, routing: Routing, x: Tensor, multiply: Callable[[], Tensor]
    ) -> Tensor:
        key = path, weight.parameter
        layers = self._products.experts.get(key)
        if layers is None or not x.requires_grad:
            return multiply()
        # Before the product, so that a device is waited for once.
        rows, order = routing.by_example(self._mask), self._orders.get(layers.names[0], BY_TOKEN)
        output = multiply()
        kept = layers.inputs(x.detach(), rows, order)
        self._open_calls[key] += 1
        self._routed.add(key)

        def on_output_gradient(dy: Tensor) -> None:
            call = RoutedCall(rows, kept, layers.outputs(dy, rows, order))
            with self._turn:
                self._routed_calls.setdefault(key, []).append(call)
                self._open_calls[key] -= 1
                if not self._open_calls[key]:
                    self._show_experts(key)

        output.register_hook(on_output_gradient)
        return output

    def _kept_input(self, name: str, x: Tensor) -> Tensor:
        projection = self.projections[name]
        if self._orders.get(name, BY_TOKEN).inputs and projection.p_in is not None:
            return projected(x, projection.p_in)
        # The model may later write into its own tensor.
        return x.clone()

    def _projected_gradient(self, name: str, dy: Tensor) -> Tensor:
        projection = self.projections[name]
        if self._orders.get(name, BY_TOKEN).outputs and projection.p_out is not None:
            return projected(dy, projection.p_out)
        return dy.to(self.types[name])

    def _close(self, name: str, x: Tensor, dy: Tensor) -> None:
        with self._turn:
            self._calls.setdefault(name, []).append((x, dy))
            self._open_calls[name] -= 1
            if not self._open_calls[name]:
                self._show(name)

    def _show(self, layer: str) -> None:
        self._seen.add(layer)
        self._observer(layer, self._calls.pop(layer))

    def _show_experts(self, key: "_FusedName") -> None:
        layers = self._products.experts[key]
        self._seen.update(layers.names)
        self._expert_observer(layers, self._routed_calls.pop(key, []))

    def _show_waiting(self) -> None:
        """Show layers of which the loss does not depend on some call: it has no gradient, and the other calls wait for it."""
        for layer in list(self._calls):
            self._open_calls[layer] = 0
            self._show(layer)
        for key in list(self._routed_calls):
            self._open_calls[key] = 0
            self._show_experts(key)

    def _per_example(self, x: Tensor, name: str) -> Tensor:
        return rows_by_example(x, self._mask, name)


def _nothing(_layers: object, _calls: object) -> None:
    return None
