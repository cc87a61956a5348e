"""Per-example projected gradients by hooks (docs/method.md: stage 1). Weight gradients are never formed.

For a layer with input X [T, I] and output gradient dY [T, O] of one example's token-summed loss, the gradient of its
weight is X^T dY; collected is G = (X P_in)^T (dY P_out) [d1, d2]. Only activation gradients are propagated: every
weight is frozen and the input embeddings are made to require grad.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from lorif_assets.mathematics.gradients.contraction import BY_TOKEN, Contraction, cheapest_order, contracted_gradients
from lorif_assets.mathematics.gradients.experts import (
    ExampleRows,
    FusedWeight,
    RoutedProduct,
    Routing,
    experts_forward,
    replaced_forward,
)
from lorif_assets.mathematics.gradients.frozen_model import frozen
from lorif_assets.mathematics.gradients.layers import LayerError, Sight, linear_weights
from lorif_assets.mathematics.gradients.projection import LayerProjection, projected
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL, losses_with_logit_gradients, sampled_labels
from lorif_assets.mathematics.gradients.weight_uses import WeightUses
from lorif_assets.mathematics.matrix_products import products_of_frozen_layers, tf32_products


@dataclass(frozen=True)
class TokenBatch:
    """Padded examples: token ids, attention mask (False on padding) and labels (-100 carries no loss), all [B, T]."""

    input_ids: Int[Tensor, "B T"]
    attention_mask: Bool[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    is_padded_right: bool = False
    """Whether that is known; otherwise the host waits for the device to see it."""

    def to(self, device: torch.device) -> "TokenBatch":
        """Return the batch on another device; a GPU fetches it while the host goes on, which needs pinned memory."""

        def moved(side: Tensor) -> Tensor:
            is_fetched = device.type == "cuda" and side.device.type == "cpu"
            return (side.pin_memory() if is_fetched else side).to(device, non_blocking=True)

        return TokenBatch(moved(self.input_ids), moved(self.attention_mask), moved(self.labels), self.is_padded_right)


@dataclass(frozen=True)
class BatchGradients:
    """Losses [B] (summed over target tokens, nats) and, per layer name, projected gradients G [B, d1, d2]."""

    losses: Float[Tensor, " B"]
    gradients: dict[str, Float[Tensor, "B d1 d2"]]


def token_summed_losses(logits: Float[Tensor, "B T V"], labels: Int[Tensor, "B T"]) -> Float[Tensor, " B"]:
    """Return each example's cross-entropy summed over its target tokens, each predicted from the tokens before it.

    A sum, not a mean, makes an example's gradient independent of the other examples in its batch.
    """
    # The labels are shifted, not the logits: slicing those would copy the largest tensor of the pass.
    targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
    # In FP32 at least: BF16 has too few digits for a log-sum-exp over a vocabulary.
    scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = functional.cross_entropy(
        scores.flatten(0, 1), targets.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    ).view(labels.shape)
    return losses.sum(dim=1)


TokenCalls = Sequence[tuple[Float[Tensor, "B T d1"], Float[Tensor, "B T d2"]]]
"""A layer's inputs and output gradients, one pair per call; a side is projected if that precedes the sum over tokens.

Those of an expert are of the tokens that were routed to it: as many rows of an example as the example with the most has,
filled with zeros; or for an observer, which sees tokens and not examples, one example of all of them.
"""

TokenObserver = Callable[[str, TokenCalls], None]
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


class GradientCollector:
    """Collects the projected gradients of a causal language model's examples, batch by batch.

    Used as a context manager: inside it the model is in eval mode and frozen; on exit, hooks are removed and the model's
    own flags restored. Results do not depend on batch size, order or padding beyond floating point.
    Projections and products are in FP32 (FP64 for an FP64 model), whatever the model's type. If layers are on several
    devices, each is projected on its own; results are on the batch's device.

    Raises:
        LayerError: a projection names a module that the model does not have, or has in other widths.
    """

    def __init__(self, model: nn.Module, projections: Iterable[LayerProjection], *, tf32: bool = False) -> None:
        """Move the projections to the layers' devices; `tf32` allows FP32 products in TF32 while the collector is entered."""
        self._model, self._tf32 = model, tf32
        weights, modules = linear_weights(model), dict(model.named_modules())
        self._projections: dict[str, LayerProjection] = {}
        self._types: dict[str, torch.dtype] = {}
        self._linear: dict[str, nn.Module] = {}
        self._watched: dict[str, nn.Parameter] = {}
        self._experts: dict[str, nn.Module] = {}
        self._n_experts: dict[str, int] = {}
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
            self._types[name] = torch.float64 if parameter.dtype == torch.float64 else torch.float32
            self._projections[name] = projection.to(parameter.device, self._types[name])
            if weight.sight is Sight.MODULE:
                self._linear[name] = weight.module
            elif weight.sight is Sight.WEIGHT:
                self._watched[name] = weight.module.get_parameter("weight")
            else:
                self._experts[weight.path] = weight.module
                self._n_experts[name] = weight.n_experts
        self._mask = torch.empty(0, 0, dtype=torch.bool)
        self._by_example = True
        self._observer: TokenObserver = _nothing
        self._orders: Mapping[str, Contraction] = {}
        self._seen: set[str] = set()
        self._routed: set[str] = set()
        self._calls: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._open_calls: Counter[str] = Counter()
        self._handles: list[RemovableHandle] = []
        self._contexts = ExitStack()
        # Autograd runs a thread per device; observers are called by one at a time.
        self._turn = Lock()

    def __enter__(self) -> Self:
        # This comes first: it raises on a model without input embeddings, and __exit__ would not be called.
        embeddings: nn.Module = self._model.get_input_embeddings()  # type: ignore[operator]
        self._contexts.enter_context(frozen(self._model))
        self._handles.append(embeddings.register_forward_hook(_require_grad))
        for name, module in self._linear.items():
            self._handles.append(module.register_forward_hook(self._forward_hook(name)))
        for path, module in self._experts.items():
            self._contexts.enter_context(
                replaced_forward(module, experts_forward(module, self._on_routed_product(path)))
            )
        self._contexts.enter_context(tf32_products(self._tf32))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._contexts.close()

    def collect(self, batch: TokenBatch) -> BatchGradients:
        """Run one forward and one backward pass over a batch, and return all gradients at once.

        Raises:
            LayerError: a tracked layer was not called, or its input is not one row per token of the batch.
        """
        gradients: dict[str, Tensor] = {}
        losses = self.stream(batch, lambda layer, _rows, found: gradients.update({layer: found}), sys.maxsize)
        return BatchGradients(losses, gradients)

    def stream(self, batch: TokenBatch, sink: GradientSink, max_numbers: int) -> Float[Tensor, " B"]:
        """Run one forward and one backward pass, and hand each layer's gradients to the sink as soon as they are known.

        Args:
            batch: the examples.
            sink: takes a layer's name, a slice of the batch and its gradients [b, d1, d2]. A layer's slices come in order;
                only the sink keeps gradients. A `TokenSink` chooses layers whose gradients are not formed.
            max_numbers: numbers of one slice's gradients; an example with more is a slice of its own.

        Returns:
            The losses.

        Raises:
            LayerError: as `collect`.
        """

        n, tokens = batch.input_ids.shape
        device = batch.input_ids.device
        token_sink = sink if isinstance(sink, TokenSink) else None
        # An expert's tokens are its own, of another number in every example.
        unformed = {
            name
            for name in self._projections
            if token_sink and name not in self._n_experts and token_sink.takes_tokens(name, tokens)
        }
        orders = {
            name: BY_TOKEN
            if name in unformed
            else cheapest_order(projection, -(-tokens // self._n_experts.get(name, 1)))
            for name, projection in self._projections.items()
        }

        def observer(layer: str, calls: TokenCalls) -> None:
            if token_sink and layer in unformed:
                token_sink.take_tokens(layer, [(x.to(device, dy.dtype), dy.to(device)) for x, dy in calls])
                return
            projection = self._projections[layer]
            step = max(1, max_numbers // (projection.d1 * projection.d2))
            for start in range(0, n, step):
                rows = slice(start, min(start + step, n))
                if calls:
                    found = contracted_gradients(calls, rows, projection, orders[layer], max_numbers).to(device)
                else:
                    shape = rows.stop - start, projection.d1, projection.d2
                    found = torch.zeros(shape, dtype=self._types[layer], device=device)
                sink(layer, rows, found)

        return self._run(_padded_right(batch)[0], observer, orders)

    def observe(
        self, batch: TokenBatch, observer: TokenObserver, label_generator: torch.Generator | None = None
    ) -> Float[Tensor, " B"]:
        """Run one forward and one backward pass, and show each layer's projected inputs and output gradients.

        Args:
            batch: the examples.
            observer: takes a layer's name and, for each of its calls in the forward pass, x P_in [B, T, d1] and
                dy P_out [B, T, d2], of an expert [1, n, d1] and [1, n, d2] for the n tokens that are no padding and were
                routed to it; called once per layer, during the backward pass.
            label_generator: draws the labels of the target tokens from the model's own distribution; without one, they are
                those of the batch.

        Returns:
            The losses.

        Raises:
            LayerError: as `collect`.
        """
        device = batch.input_ids.device
        padded_right, places = _padded_right(batch)

        def as_in_the_batch(layer: str, calls: TokenCalls) -> None:
            # Inputs without a projection still have the model's type.
            shown = [(x.to(device, dy.dtype), dy.to(device)) for x, dy in calls]
            if places is not None and self._projections[layer].layer.expert is None:
                rows = torch.arange(len(places), device=device).unsqueeze(1)
                shown = [(x[rows, places], dy[rows, places]) for x, dy in shown]
            observer(layer, shown)

        return self._run(padded_right, as_in_the_batch, {}, label_generator, by_example=False)

    def _run(
        self,
        batch: TokenBatch,
        observer: TokenObserver,
        orders: Mapping[str, Contraction],
        label_generator: torch.Generator | None = None,
        *,
        by_example: bool = True,
    ) -> Float[Tensor, " B"]:
        """Run both passes over a batch padded on the right.

        A layer's calls are projected on the sides that its order names, by default on both. The rows of an expert are kept
        apart by example, or not.
        """
        self._observer, self._orders = observer, orders
        self._seen, self._routed, self._calls, self._open_calls = set(), set(), {}, Counter()
        self._mask, self._by_example = batch.attention_mask, by_example
        with torch.enable_grad():
            with products_of_frozen_layers(self._model), self._watching():
                # The positions are the model's own to count: behind the padding there is nothing.
                output = self._model(
                    input_ids=batch.input_ids, attention_mask=batch.attention_mask.long(), use_cache=False
                )
            labels = batch.labels.to(output.logits.device)
            if label_generator is not None:
                labels = sampled_labels(output.logits.detach(), labels, label_generator)
            losses, gradient = losses_with_logit_gradients(output.logits.detach(), labels)
            output.logits.backward(gradient)
        # A call that the loss does not depend on has no gradient, and keeps its layer's other calls waiting.
        for layer in list(self._calls):
            self._show(layer)
        self._show_unreached_experts()
        missing = [name for name in self._projections if name not in self._seen]
        if missing:
            raise LayerError(
                f"layer {missing[0]!r} got no gradient ({len(missing)} such): the forward pass does not call it, or "
                "the loss does not depend on it. Take it out with `recipe.exclude_layers`"
            )
        return losses.to(batch.input_ids.device)

    def _watching(self) -> AbstractContextManager[object]:
        return WeightUses(self._watched, self._on_weight_use) if self._watched else nullcontext()

    def _forward_hook(self, name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._follow(name, inputs[0], output)

        return hook

    def _on_weight_use(self, name: str, x: Tensor, output: Tensor, is_transposed: bool) -> None:
        self._follow(name, x.mT if is_transposed else x, output, is_transposed)

    def _follow(self, name: str, x: Tensor, output: Tensor, is_transposed: bool = False) -> None:
        """Keep a call's input, projected or not, until its output's gradient arrives."""
        if not output.requires_grad:
            return
        # A layer on another device moves its input there itself, after this hook.
        kept = self._kept_input(name, self._per_example(x.detach(), name).to(output.device))
        self._open_calls[name] += 1

        def on_output_gradient(dy: Tensor) -> None:
            dy = self._per_example(dy.mT if is_transposed else dy, name)
            self._close(name, kept, self._projected_gradient(name, dy))

        output.register_hook(on_output_gradient)

    def _on_routed_product(self, path: str) -> RoutedProduct:
        def on_product(weight: FusedWeight, routing: Routing, x: Tensor, output: Tensor) -> None:
            names = [weight.layer_name(path, expert) for expert in range(weight.n_experts)]
            tracked = [expert for expert, name in enumerate(names) if name in self._projections]
            if not tracked or not output.requires_grad:
                return
            rows = ExampleRows.of(routing, self._mask)
            inputs = rows.by_expert(x.detach())
            reached = [expert for expert in tracked if rows.sizes[expert]]
            self._routed.update(names[expert] for expert in tracked)
            kept = {expert: self._kept_input(names[expert], inputs[expert]) for expert in reached}
            self._open_calls.update(names[expert] for expert in reached)

            def on_output_gradient(dy: Tensor) -> None:
                outputs = rows.by_expert(dy)
                for expert, of_expert in kept.items():
                    pair = (of_expert, self._projected_gradient(names[expert], outputs[expert]))
                    if self._by_example:
                        pair = (rows.padded(expert, pair[0]), rows.padded(expert, pair[1]))
                    else:
                        pair = (pair[0].unsqueeze(0), pair[1].unsqueeze(0))
                    self._close(names[expert], *pair)

            output.register_hook(on_output_gradient)

        return on_product

    def _kept_input(self, name: str, x: Tensor) -> Tensor:
        projection = self._projections[name]
        if self._orders.get(name, BY_TOKEN).inputs and projection.p_in is not None:
            return projected(x, projection.p_in)
        # The model may later write into its own tensor.
        return x.clone()

    def _projected_gradient(self, name: str, dy: Tensor) -> Tensor:
        projection = self._projections[name]
        if self._orders.get(name, BY_TOKEN).outputs and projection.p_out is not None:
            return projected(dy, projection.p_out)
        return dy.to(self._types[name])

    def _close(self, name: str, x: Tensor, dy: Tensor) -> None:
        with self._turn:
            self._calls.setdefault(name, []).append((x, dy))
            self._open_calls[name] -= 1
            if not self._open_calls[name]:
                self._show(name)

    def _show(self, layer: str) -> None:
        self._seen.add(layer)
        self._observer(layer, self._calls.pop(layer))

    def _show_unreached_experts(self) -> None:
        for layer in self._routed - self._seen:
            self._seen.add(layer)
            self._observer(layer, [])

    def _per_example(self, x: Tensor, name: str) -> Tensor:
        """Return x as [B, T, width]; some models flatten batch and tokens before a linear layer, or have heads of 1."""
        b, t = self._mask.shape
        if x.shape[:-1].numel() == b * t and x.shape[0] in (b, b * t):
            return x.reshape(b, t, -1)
        raise LayerError(
            f"layer {name!r} got a tensor of shape {list(x.shape)} for a batch of {b} examples of {t} "
            "tokens: its rows are not the batch's tokens (a routed expert?). Take it out with `recipe.exclude_layers`"
        )


def _nothing(_layer: str, _calls: TokenCalls) -> None:
    return None


def _require_grad(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    # A copy, as autograd lets no model write into a leaf.
    return output.requires_grad_(True).clone()


def _padded_right(batch: TokenBatch) -> tuple[TokenBatch, Int[Tensor, "B T"] | None]:
    """Return the batch padded on the right, and each token's place in it; None where it was padded so, or not at all."""
    if batch.is_padded_right:
        return batch, None
    order = batch.attention_mask.logical_not().long().argsort(dim=1, stable=True)
    if bool((order.diff(dim=1) > 0).all()):
        return batch, None
    moved = (side.gather(1, order) for side in (batch.input_ids, batch.attention_mask, batch.labels))
    return TokenBatch(*moved), order.argsort(dim=1)
