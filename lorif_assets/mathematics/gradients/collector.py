"""Per-example projected gradients by hooks (docs/method.md: stage 1). Weight gradients are never formed.

For a layer with input X [T, I] and output gradient dY [T, O] of one example's token-summed loss, the gradient of its
weight is X^T dY; collected is G = (X P_in)^T (dY P_out) [d1, d2]. Only activation gradients are propagated: every
weight is frozen and the input embeddings are made to require grad.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lorif_assets.mathematics.gradients.contraction import BY_TOKEN, Contraction, cheapest_order, contracted_gradients
from lorif_assets.mathematics.gradients.expert_layers import ExpertLayers, RoutedCall
from lorif_assets.mathematics.gradients.frozen_model import frozen, require_grad
from lorif_assets.mathematics.gradients.gradient_sinks import GradientSink, TokenSink
from lorif_assets.mathematics.gradients.head import Head, HeadChunk, chunk_numbers_on, decoded, head_chunks, head_of
from lorif_assets.mathematics.gradients.layer_calls import ExpertObserver, LayerCalls, TokenCalls, TokenObserver
from lorif_assets.mathematics.gradients.projection import LayerProjection
from lorif_assets.mathematics.gradients.token_losses import (
    IGNORED_LABEL,
    losses_of_targets,
    next_tokens,
    sampled_targets,
)
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

    @property
    def model_inputs(self) -> dict[str, Any]:
        """What a model's forward pass takes of a batch padded on the right.

        The positions are the model's own to count: behind the padding there is nothing.
        """
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask.long(), "use_cache": False}


@dataclass(frozen=True)
class BatchGradients:
    """Losses [B] (summed over target tokens, nats) and, per layer name, projected gradients G [B, d1, d2].

    `hidden` has the gradients of the losses by the last hidden states, padded on the right, where the model can be cut in
    front of its head.
    """

    losses: Float[Tensor, " B"]
    gradients: dict[str, Float[Tensor, "B d1 d2"]]
    hidden: Float[Tensor, "B T H"] | None = None


LogitGradients = Callable[
    [Float[Tensor, "b t V"], Int[Tensor, "b t"]], tuple[Float[Tensor, " b"], Float[Tensor, "b t V"]]
]
"""What a backward pass begins with: from logits and targets at the tokens that predict them, values and their gradients."""

OutputScalar = Callable[[Any, TokenBatch], Float[Tensor, " B"]]
"""A number for each example from the model's output, with its hidden states, and the batch."""

_ChunkObserver = Callable[[str, TokenCalls, HeadChunk], None]


class GradientCollector:
    """Collects the projected gradients of a causal language model's examples, batch by batch.

    Used as a context manager: inside it the model is in eval mode and frozen; on exit, hooks are removed and the model's
    own flags restored. Results do not depend on batch size, order or padding beyond floating point.
    Projections and products are in FP32 (FP64 for an FP64 model), whatever the model's type. If layers are on several
    devices, each is projected on its own; results are on the batch's device. Logits are made and differentiated a chunk of
    tokens at a time (`chunk_numbers` logits, by default what suits the device), and only of tokens that predict a target,
    where the model can be cut so.

    Raises:
        LayerError: a projection names a module that the model does not have, or has in other widths.
    """

    def __init__(
        self,
        model: nn.Module,
        projections: Iterable[LayerProjection],
        chunk_numbers: int | None = None,
        *,
        tf32: bool = False,
    ) -> None:
        """Move the projections to the layers' devices; `tf32` allows FP32 products in TF32 while the collector is entered."""
        self._model, self._tf32 = model, tf32
        self._chunk_numbers = chunk_numbers or chunk_numbers_on(next(model.parameters()).device)
        self._calls = LayerCalls(model, projections)
        self._contexts = ExitStack()
        self._hidden: Tensor | None = None

    def __enter__(self) -> Self:
        # This comes first: it raises on a model without input embeddings, and __exit__ would not be called.
        embeddings: nn.Module = self._model.get_input_embeddings()  # type: ignore[operator]
        self._contexts.enter_context(frozen(self._model))
        self._contexts.callback(embeddings.register_forward_hook(require_grad).remove)
        self._contexts.enter_context(self._calls.followed())
        self._contexts.enter_context(tf32_products(self._tf32))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._contexts.close()

    def collect(self, batch: TokenBatch) -> BatchGradients:
        """Run one forward and one backward pass over a batch, and return all gradients at once.

        Raises:
            LayerError: a tracked layer was not called, or its input is not one row per token of the batch.
        """
        slices: dict[str, list[Tensor]] = {}
        losses = self.stream(batch, lambda layer, _, found: slices.setdefault(layer, []).append(found), sys.maxsize)
        hidden, self._hidden = self._hidden, None
        gradients = {layer: found[0] if len(found) == 1 else torch.cat(found) for layer, found in slices.items()}
        return BatchGradients(losses, gradients, hidden)

    def stream(
        self,
        batch: TokenBatch,
        sink: GradientSink,
        max_numbers: int,
        scalar: OutputScalar | None = None,
        logit_gradients: LogitGradients | None = None,
    ) -> Float[Tensor, " B"]:
        """Run one forward and one backward pass, and hand each layer's gradients to the sink as soon as they are known.

        Args:
            batch: the examples.
            sink: takes a layer's name, a slice of the batch and its gradients [b, d1, d2]. A layer's slices come in order;
                only the sink keeps gradients. A `TokenSink` chooses layers whose gradients are not formed.
            max_numbers: numbers of one slice's gradients; an example with more is a slice of its own.
            scalar: what is differentiated in place of the losses. Layers that it does not depend on have zeros.
            logit_gradients: what the backward pass begins with, without a scalar: called chunk by chunk of the logits.

        Returns:
            The losses, or the scalar's values.

        Raises:
            LayerError: as `collect`.
            ValueError: the scalar gives no number for each example, or none that depends on the tracked layers' outputs.
        """
        n, tokens = batch.input_ids.shape
        device = batch.input_ids.device
        projections, n_experts = self._calls.projections, self._calls.n_experts
        token_sink, head = sink if isinstance(sink, TokenSink) else None, head_of(self._model)
        # An expert's tokens are its own, of another number in every example; a head's come in chunks.
        unformed = {
            name
            for name in projections
            if token_sink
            and name not in n_experts
            and not (head and head.holds(name))
            and token_sink.takes_tokens(name, tokens)
        }
        orders = {
            name: BY_TOKEN if name in unformed else cheapest_order(projection, -(-tokens // n_experts.get(name, 1)))
            for name, projection in projections.items()
        }

        def gradients_of(layer: str, calls: TokenCalls, count: int) -> Iterator[tuple[slice, Tensor]]:
            projection = projections[layer]
            step = max(1, max_numbers // (projection.d1 * projection.d2))
            for start in range(0, count, step):
                rows = slice(start, min(start + step, count))
                if calls:
                    found = contracted_gradients(calls, rows, projection, orders[layer], max_numbers).to(device)
                else:
                    shape = rows.stop - start, projection.d1, projection.d2
                    found = torch.zeros(shape, dtype=self._calls.types[layer], device=device)
                yield rows, found

        def expert_observer(layers: ExpertLayers, calls: Sequence[RoutedCall]) -> None:
            for layer, rows, found in layers.gradients(calls, n, orders[layers.names[0]], max_numbers):
                sink(layer, rows, found.to(device))

        def observer(layer: str, calls: TokenCalls) -> None:
            if token_sink and layer in unformed:
                token_sink.take_tokens(layer, [(x.to(device, dy.dtype), dy.to(device)) for x, dy in calls])
                return
            for rows, found in gradients_of(layer, calls, n):
                sink(layer, rows, found)

        unfinished: dict[str, Tensor] = {}

        def chunk_observer(layer: str, calls: TokenCalls, chunk: HeadChunk) -> None:
            first = chunk.rows.start
            for rows, found in gradients_of(layer, calls, chunk.rows.stop - first):
                # A long example's gradient is the sum of those of its chunks.
                total = unfinished.pop(layer) + found if layer in unfinished else found
                if chunk.completes_rows:
                    sink(layer, slice(first + rows.start, first + rows.stop), total)
                else:
                    unfinished[layer] = total

        padded_right = _padded_right(batch)[0]
        if scalar is not None:
            return self._run_scalar(padded_right, scalar, observer, expert_observer, orders)
        return self._run(padded_right, observer, expert_observer, chunk_observer, orders, logit_gradients)

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
        whole: dict[str, list[tuple[Tensor, Tensor]]] = {}

        def as_in_the_batch(layer: str, calls: TokenCalls) -> None:
            # Inputs without a projection still have the model's type.
            shown = [(x.to(device, dy.dtype), dy.to(device)) for x, dy in calls]
            if places is not None:
                rows = torch.arange(len(places), device=device).unsqueeze(1)
                shown = [(x[rows, places], dy[rows, places]) for x, dy in shown]
            observer(layer, shown)

        def expert_observer(layers: ExpertLayers, calls: Sequence[RoutedCall]) -> None:
            for layer, of_layer in layers.tokens(calls):
                observer(layer, [(x.to(device, dy.dtype), dy.to(device)) for x, dy in of_layer])

        def chunk_observer(layer: str, calls: TokenCalls, chunk: HeadChunk) -> None:
            """Put a head's layer together again from all chunks."""
            if layer not in whole:
                whole[layer] = [tuple(side.new_zeros(*batch.labels.shape, side.shape[2]) for side in c) for c in calls]  # type: ignore[misc]
            for call, of_chunk in zip(whole[layer], calls, strict=True):
                for side, part in zip(call, of_chunk, strict=True):
                    chunk.put(side, part)
            if chunk.completes_rows and chunk.rows.stop == batch.labels.shape[0]:
                as_in_the_batch(layer, whole.pop(layer))

        def of_drawn(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
            if label_generator is not None:
                targets = sampled_targets(logits, targets, label_generator)
            return losses_of_targets(logits, targets)

        return self._run(
            padded_right, as_in_the_batch, expert_observer, chunk_observer, {}, of_drawn, is_head_whole=True
        )

    def _run(
        self,
        batch: TokenBatch,
        observer: TokenObserver,
        expert_observer: ExpertObserver,
        chunk_observer: _ChunkObserver,
        orders: Mapping[str, Contraction],
        logit_gradients: LogitGradients | None = None,
        *,
        is_head_whole: bool = False,
    ) -> Float[Tensor, " B"]:
        """Run both passes over a batch padded on the right.

        A layer's calls are projected on the sides that its order names, by default on both. The chunk observer is shown the
        tracked layers of a head that runs in chunks, chunk by chunk: those of the tokens that predict a target, or of all.
        """
        self._calls.start(batch.attention_mask, observer, expert_observer, orders)
        inputs, head, targets = batch.model_inputs, head_of(self._model), next_tokens(batch.labels)
        with torch.enable_grad():
            if head is None:
                with self._forward_pass():
                    logits = self._model(**inputs).logits
                losses = _differentiate(logits, targets, logit_gradients)
            else:
                is_tracked = any(head.holds(layer) for layer in self._calls.projections)
                needed = targets != IGNORED_LABEL if not (is_head_whole and is_tracked) else batch.attention_mask
                losses = self._run_in_chunks(head, inputs, targets, needed, chunk_observer, logit_gradients)
        self._calls.finish()
        return losses.to(batch.input_ids.device)

    def _run_scalar(
        self,
        batch: TokenBatch,
        scalar: OutputScalar,
        observer: TokenObserver,
        expert_observer: ExpertObserver,
        orders: Mapping[str, Contraction],
    ) -> Float[Tensor, " B"]:
        """Run both passes of a scalar of the model's output, over a batch padded on the right."""
        self._calls.start(batch.attention_mask, observer, expert_observer, orders)
        with torch.enable_grad():
            with self._forward_pass():
                output = self._model(**batch.model_inputs, output_hidden_states=True)
            values = scalar(output, batch)
            n = len(batch.input_ids)
            if not isinstance(values, Tensor) or values.shape != (n,) or not values.requires_grad:
                found = f"a tensor {list(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
                if isinstance(values, Tensor) and not values.requires_grad:
                    found += ", through which no gradient flows"
                raise ValueError(
                    f"expected a tensor [{n}] that depends on the model's output, a number for each example; found {found}"
                )
            values.sum().backward()
        self._calls.finish(are_all_reached=False)
        return values.detach().to(batch.input_ids.device)

    def _run_in_chunks(
        self,
        head: Head,
        inputs: dict[str, Any],
        targets: Int[Tensor, "B T"],
        needed: Bool[Tensor, "B T"],
        chunk_observer: _ChunkObserver,
        logit_gradients: LogitGradients | None,
    ) -> Float[Tensor, " B"]:
        """Run both passes, those of the head chunk by chunk between those of the decoder."""
        # Before the decoder's pass: the host waits to hear how many tokens they are, and then no longer.
        chunks = list(head_chunks(needed, max(1, self._chunk_numbers // head.vocabulary)))
        with self._forward_pass():
            behind = decoded(self._model, head, inputs)
        known = behind.hidden.detach()
        gradient = torch.zeros_like(known)
        of_chunks: list[tuple[slice, Tensor]] = []
        for chunk in chunks:
            with self._calls.of_chunk(chunk.is_token, partial(_shown_with, chunk_observer, chunk)):
                hidden = chunk.of(known).requires_grad_(True)
                hidden.register_hook(partial(chunk.put, gradient))
                with self._forward_pass():
                    logits = behind.logits(hidden)
                found = _differentiate(logits, chunk.targets(targets), logit_gradients)
            of_chunks.append((chunk.rows, found))
        behind.hidden.backward(gradient)
        self._hidden = gradient
        # In the type of the logits: some models make them in another than that of their hidden states.
        losses = of_chunks[0][1].new_zeros(len(known))
        for rows, found in of_chunks:
            losses[rows] += found
        return losses

    @contextmanager
    def _forward_pass(self) -> Iterator[None]:
        with products_of_frozen_layers(self._model), self._calls.in_forward_pass():
            yield


def _differentiate(
    logits: Float[Tensor, "b t V"], targets: Int[Tensor, "b t"], logit_gradients: LogitGradients | None
) -> Float[Tensor, " b"]:
    """Run the backward pass from logits, and return the losses."""
    losses, gradient = (logit_gradients or losses_of_targets)(logits.detach(), targets.to(logits.device))
    logits.backward(gradient)
    return losses


def _shown_with(observer: _ChunkObserver, chunk: HeadChunk, layer: str, calls: TokenCalls) -> None:
    observer(layer, calls, chunk)


def _padded_right(batch: TokenBatch) -> tuple[TokenBatch, Int[Tensor, "B T"] | None]:
    """Return the batch padded on the right, and each token's place in it; None where it was padded so, or not at all."""
    if batch.is_padded_right:
        return batch, None
    order = batch.attention_mask.logical_not().long().argsort(dim=1, stable=True)
    if bool((order.diff(dim=1) > 0).all()):
        return batch, None
    moved = (side.gather(1, order) for side in (batch.input_ids, batch.attention_mask, batch.labels))
    ids, mask, labels = moved
    return TokenBatch(ids, mask, labels, is_padded_right=True), order.argsort(dim=1)
