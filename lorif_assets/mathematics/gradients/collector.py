"""Per-example projected gradients by hooks (docs/method.md: stage 1). Weight gradients are never formed.

For a layer with input X [T, I] and output gradient dY [T, O] of one example's token-summed loss, the gradient of its
weight is X^T dY; collected is G = (X P_in)^T (dY P_out) [d1, d2]. Only activation gradients are propagated: every
weight is frozen and the input embeddings are made to require grad.
"""

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
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
from lorif_assets.mathematics.gradients.layers import LayerError, linear_widths
from lorif_assets.mathematics.gradients.projection import LayerProjection, projected
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL, losses_with_logit_gradients, sampled_labels
from lorif_assets.mathematics.matrix_products import products_of_frozen_layers, tf32_products


@dataclass(frozen=True)
class TokenBatch:
    """Padded examples: token ids, attention mask (False on padding) and labels (-100 carries no loss), all [B, T]."""

    input_ids: Int[Tensor, "B T"]
    attention_mask: Bool[Tensor, "B T"]
    labels: Int[Tensor, "B T"]

    def to(self, device: torch.device) -> "TokenBatch":
        """Return the batch on another device; a GPU fetches it while the host goes on, which needs pinned memory."""

        def moved(side: Tensor) -> Tensor:
            is_fetched = device.type == "cuda" and side.device.type == "cpu"
            return (side.pin_memory() if is_fetched else side).to(device, non_blocking=True)

        return TokenBatch(moved(self.input_ids), moved(self.attention_mask), moved(self.labels))


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
"""A layer's inputs and output gradients, one pair per call; a side is projected if that precedes the sum over tokens."""

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
        modules = dict(model.named_modules())
        self._layers: list[tuple[nn.Module, LayerProjection]] = []
        for projection in projections:
            module = modules.get(projection.layer.name)
            if module is None:
                raise LayerError(f"the model has no layer {projection.layer.name!r}; was it saved from another model?")
            expected, found = (projection.layer.d_in, projection.layer.d_out), linear_widths(module)
            if found != expected:
                raise LayerError(
                    f"layer {projection.layer.name!r} was expected to have (input, output) widths {expected}, "
                    f"but is a {type(module).__name__} with {found or 'none'}; was it saved from another model?"
                )
            weight = next(module.parameters())
            dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
            self._layers.append((module, projection.to(weight.device, dtype)))
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters
        self._batch_shape = (0, 0)
        self._observer: TokenObserver = _nothing
        self._orders: Mapping[str, Contraction] = {}
        self._seen: set[str] = set()
        self._calls: dict[str, list[tuple[Tensor, Tensor]]] = {}
        self._open_calls: Counter[str] = Counter()
        self._handles: list[RemovableHandle] = []
        self._trainable: list[nn.Parameter] = []
        self._in_training: list[nn.Module] = []
        # Autograd runs a thread per device; observers are called by one at a time.
        self._turn = Lock()
        self._precision = ExitStack()

    def __enter__(self) -> Self:
        # This comes first: it raises on a model without input embeddings, and __exit__ would not be called.
        embeddings: nn.Module = self._model.get_input_embeddings()  # type: ignore[operator]
        self._in_training = [module for module in self._model.modules() if module.training]
        self._model.eval()
        self._trainable = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        for parameter in self._trainable:
            parameter.requires_grad_(False)
        self._handles.append(embeddings.register_forward_hook(_require_grad))
        for module, projection in self._layers:
            self._handles.append(module.register_forward_hook(self._forward_hook(projection)))
        self._precision.enter_context(tf32_products(self._tf32))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._precision.close()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for parameter in self._trainable:
            parameter.requires_grad_(True)
        for module in self._in_training:
            module.training = True

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
        projections = {projection.layer.name: projection for _, projection in self._layers}
        token_sink = sink if isinstance(sink, TokenSink) else None
        unformed = {name for name in projections if token_sink and token_sink.takes_tokens(name, tokens)}
        orders = {
            name: BY_TOKEN if name in unformed else cheapest_order(projection, tokens)
            for name, projection in projections.items()
        }

        def observer(layer: str, calls: TokenCalls) -> None:
            if token_sink and layer in unformed:
                token_sink.take_tokens(layer, [(x.to(device, dy.dtype), dy.to(device)) for x, dy in calls])
                return
            projection = projections[layer]
            step = max(1, max_numbers // (projection.d1 * projection.d2))
            for start in range(0, n, step):
                rows = slice(start, min(start + step, n))
                found = contracted_gradients(calls, rows, projection, orders[layer], max_numbers)
                sink(layer, rows, found.to(device))

        return self._run(batch, observer, orders)

    def observe(
        self, batch: TokenBatch, observer: TokenObserver, label_generator: torch.Generator | None = None
    ) -> Float[Tensor, " B"]:
        """Run one forward and one backward pass, and show each layer's projected inputs and output gradients.

        Args:
            batch: the examples.
            observer: takes a layer's name and, for each of its calls in the forward pass, x P_in [B, T, d1] and
                dy P_out [B, T, d2]; called once per layer, during the backward pass.
            label_generator: draws the labels of the target tokens from the model's own distribution; without one, they are
                those of the batch.

        Returns:
            The losses.

        Raises:
            LayerError: as `collect`.
        """
        device = batch.input_ids.device

        def on_one_device(layer: str, calls: TokenCalls) -> None:
            # Inputs without a projection still have the model's type.
            observer(layer, [(x.to(device, dy.dtype), dy.to(device)) for x, dy in calls])

        return self._run(batch, on_one_device, {}, label_generator)

    def _run(
        self,
        batch: TokenBatch,
        observer: TokenObserver,
        orders: Mapping[str, Contraction],
        label_generator: torch.Generator | None = None,
    ) -> Float[Tensor, " B"]:
        """Run both passes; a layer's calls are projected on the sides that its order names, by default on both."""
        self._observer, self._orders = observer, orders
        self._seen, self._calls, self._open_calls = set(), {}, Counter()
        self._batch_shape = (batch.input_ids.shape[0], batch.input_ids.shape[1])
        # With padding on the left, an example's first token follows padding, which predicts nothing.
        follows_token = functional.pad(batch.attention_mask[:, :-1], (1, 0))
        labels = batch.labels.masked_fill(~follows_token, IGNORED_LABEL)
        positions = (batch.attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
        with torch.enable_grad():
            with products_of_frozen_layers(self._model):
                output = self._model(
                    input_ids=batch.input_ids,
                    attention_mask=batch.attention_mask.long(),
                    use_cache=False,
                    **({"position_ids": positions} if self._takes_positions else {}),
                )
            labels = labels.to(output.logits.device)
            if label_generator is not None:
                labels = sampled_labels(output.logits.detach(), labels, label_generator)
            losses, gradient = losses_with_logit_gradients(output.logits.detach(), labels)
            output.logits.backward(gradient)
        # A call that the loss does not depend on has no gradient, and keeps its layer's other calls waiting.
        for layer in list(self._calls):
            self._show(layer)
        missing = [p.layer.name for _, p in self._layers if p.layer.name not in self._seen]
        if missing:
            raise LayerError(
                f"layer {missing[0]!r} got no gradient ({len(missing)} such): the forward pass does not call it, or "
                "the loss does not depend on it. Take it out with `recipe.exclude_layers`"
            )
        return losses.to(batch.input_ids.device)

    def _forward_hook(self, projection: LayerProjection) -> Any:
        name = projection.layer.name

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                return
            order = self._orders.get(name, BY_TOKEN)
            # A layer on another device moves its input there itself, after this hook.
            x = self._per_example(inputs[0].detach(), projection).to(output.device)
            # A copy, as the model may later write into its own tensor.
            projected_input = (
                projected(x, projection.p_in) if order.inputs and projection.p_in is not None else x.clone()
            )
            self._open_calls[name] += 1

            def on_output_gradient(dy: Tensor) -> None:
                dy = self._per_example(dy, projection)
                if projection.p_out is None or not order.outputs:
                    projected_gradient = dy.to(_compute_dtype(dy))
                else:
                    projected_gradient = projected(dy, projection.p_out)
                with self._turn:
                    self._calls.setdefault(name, []).append((projected_input, projected_gradient))
                    self._open_calls[name] -= 1
                    if not self._open_calls[name]:
                        self._show(name)

            output.register_hook(on_output_gradient)

        return hook

    def _show(self, layer: str) -> None:
        self._seen.add(layer)
        self._observer(layer, self._calls.pop(layer))

    def _per_example(self, x: Tensor, projection: LayerProjection) -> Tensor:
        """Return x as [B, T, width]; some models flatten batch and tokens before a linear layer, or have heads of 1."""
        b, t = self._batch_shape
        if x.shape[:-1].numel() == b * t and x.shape[0] in (b, b * t):
            return x.reshape(b, t, -1)
        raise LayerError(
            f"layer {projection.layer.name!r} got a tensor of shape {list(x.shape)} for a batch of {b} examples of {t} "
            "tokens: its rows are not the batch's tokens (a routed expert?). Take it out with `recipe.exclude_layers`"
        )


def _nothing(_layer: str, _calls: TokenCalls) -> None:
    return None


def _require_grad(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.requires_grad_(True)


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
