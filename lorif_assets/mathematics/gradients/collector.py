"""Per-example projected gradients by hooks (docs/method.md: stage 1). Weight gradients are never formed.

For a layer with input X [T, I] and output gradient dY [T, O] of one example's token-summed loss, the gradient of its
weight is X^T dY; collected is G = (X P_in)^T (dY P_out) [d1, d2]. Only activation gradients are propagated: every
weight is frozen and the input embeddings are made to require grad.
"""

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from lorif_assets.mathematics.gradients.contraction import BY_TOKEN, Contraction, cheapest_order, contracted_gradients
from lorif_assets.mathematics.gradients.head import CHUNK_NUMBERS, Head, HeadChunk, decoded, head_chunks, head_of
from lorif_assets.mathematics.gradients.layers import LayerError, linear_widths
from lorif_assets.mathematics.gradients.projection import LayerProjection
from lorif_assets.mathematics.gradients.token_losses import (
    IGNORED_LABEL,
    losses_of_targets,
    next_tokens,
    sampled_targets,
)
from lorif_assets.mathematics.matrix_products import product, products_of_frozen_layers


@dataclass(frozen=True)
class TokenBatch:
    """Padded examples: token ids, attention mask (False on padding) and labels (-100 carries no loss), all [B, T]."""

    input_ids: Int[Tensor, "B T"]
    attention_mask: Bool[Tensor, "B T"]
    labels: Int[Tensor, "B T"]

    def to(self, device: torch.device) -> "TokenBatch":
        """Return the batch on another device."""
        return TokenBatch(
            *(t.to(device, non_blocking=True) for t in (self.input_ids, self.attention_mask, self.labels))
        )


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
    targets = next_tokens(labels)
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
_ChunkObserver = Callable[[str, TokenCalls, HeadChunk], None]


class GradientCollector:
    """Collects the projected gradients of a causal language model's examples, batch by batch.

    Used as a context manager: inside it the model is in eval mode and frozen; on exit, hooks are removed and the model's
    own flags restored. Results do not depend on batch size, order or padding beyond floating point.
    Projections and products are in FP32 (FP64 for an FP64 model), whatever the model's type. If layers are on several
    devices, each is projected on its own; results are on the batch's device. Logits are made and differentiated a chunk of
    tokens at a time (`chunk_numbers` logits), and only of tokens that predict a target, where the model can be cut so.

    Raises:
        LayerError: a projection names a module that the model does not have, or has in other widths.
    """

    def __init__(
        self, model: nn.Module, projections: Iterable[LayerProjection], chunk_numbers: int = CHUNK_NUMBERS
    ) -> None:
        self._model = model
        self._chunk_numbers = chunk_numbers
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
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
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
        slices: dict[str, list[Tensor]] = {}
        losses = self.stream(batch, lambda layer, _, found: slices.setdefault(layer, []).append(found), sys.maxsize)
        return BatchGradients(
            losses, {layer: found[0] if len(found) == 1 else torch.cat(found) for layer, found in slices.items()}
        )

    def stream(self, batch: TokenBatch, sink: GradientSink, max_numbers: int) -> Float[Tensor, " B"]:
        """Run one forward and one backward pass, and hand each layer's gradients to the sink as soon as they are known.

        Args:
            batch: the examples.
            sink: takes a layer's name, a slice of the batch and its gradients [b, d1, d2]. A layer's slices come in order;
                only the sink keeps gradients.
            max_numbers: numbers of one slice's gradients; an example with more is a slice of its own.

        Returns:
            The losses.

        Raises:
            LayerError: as `collect`.
        """

        n, tokens = batch.input_ids.shape
        device = batch.input_ids.device
        projections = {projection.layer.name: projection for _, projection in self._layers}
        orders = {name: cheapest_order(projection, tokens) for name, projection in projections.items()}

        def gradients_of(layer: str, calls: TokenCalls, count: int) -> Iterator[tuple[slice, Tensor]]:
            projection = projections[layer]
            step = max(1, max_numbers // (projection.d1 * projection.d2))
            for start in range(0, count, step):
                rows = slice(start, min(start + step, count))
                yield rows, contracted_gradients(calls, rows, projection, orders[layer], max_numbers).to(device)

        def observer(layer: str, calls: TokenCalls) -> None:
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

        return self._run(batch, observer, chunk_observer, orders)

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
        whole: dict[str, list[tuple[Tensor, Tensor]]] = {}

        def on_one_device(layer: str, calls: TokenCalls) -> None:
            # Inputs without a projection still have the model's type.
            observer(layer, [(x.to(device, dy.dtype), dy.to(device)) for x, dy in calls])

        def chunk_observer(layer: str, calls: TokenCalls, chunk: HeadChunk) -> None:
            """Put a head's layer together again from all chunks."""
            if layer not in whole:
                whole[layer] = [tuple(side.new_zeros(*batch.labels.shape, side.shape[2]) for side in c) for c in calls]  # type: ignore[misc]
            for call, of_chunk in zip(whole[layer], calls, strict=True):
                for side, part in zip(call, of_chunk, strict=True):
                    chunk.put(side, part)
            if chunk.completes_rows and chunk.rows.stop == batch.labels.shape[0]:
                on_one_device(layer, whole.pop(layer))

        return self._run(batch, on_one_device, chunk_observer, {}, label_generator, every_token=True)

    def _run(
        self,
        batch: TokenBatch,
        observer: TokenObserver,
        chunk_observer: _ChunkObserver,
        orders: Mapping[str, Contraction],
        label_generator: torch.Generator | None = None,
        *,
        every_token: bool = False,
    ) -> Float[Tensor, " B"]:
        """Run both passes; a layer's calls are projected on the sides that its order names, by default on both.

        The chunk observer is shown the tracked layers of a head that runs in chunks, chunk by chunk: of the tokens that
        predict a target, or of every token.
        """
        self._observer, self._orders = observer, orders
        self._seen, self._calls, self._open_calls = set(), {}, Counter()
        self._batch_shape = (batch.input_ids.shape[0], batch.input_ids.shape[1])
        # With padding on the left, an example's first token follows padding, which predicts nothing.
        follows_token = functional.pad(batch.attention_mask[:, :-1], (1, 0))
        labels = batch.labels.masked_fill(~follows_token, IGNORED_LABEL)
        positions = (batch.attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask.long(),
            "use_cache": False,
            **({"position_ids": positions} if self._takes_positions else {}),
        }
        head, targets = head_of(self._model), next_tokens(labels)
        with torch.enable_grad():
            if head is None:
                with products_of_frozen_layers(self._model):
                    logits = self._model(**inputs).logits
                losses = self._differentiate(logits, targets, label_generator)
            else:
                of_head = [p.layer.name for _, p in self._layers if head.holds(p.layer.name)]
                needed = batch.attention_mask if every_token and of_head else targets != IGNORED_LABEL
                losses = self._run_in_chunks(head, inputs, targets, needed, chunk_observer, label_generator)
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

    def _run_in_chunks(
        self,
        head: Head,
        inputs: dict[str, Any],
        targets: Int[Tensor, "B T"],
        needed: Bool[Tensor, "B T"],
        chunk_observer: _ChunkObserver,
        label_generator: torch.Generator | None,
    ) -> Float[Tensor, " B"]:
        """Run both passes, those of the head chunk by chunk between those of the decoder."""
        with products_of_frozen_layers(self._model):
            behind = decoded(self._model, head, inputs)
        known = behind.hidden.detach()
        gradient = torch.zeros_like(known)
        losses = known.new_zeros(len(known), dtype=_compute_dtype(known))
        observer, shape = self._observer, self._batch_shape
        for chunk in head_chunks(needed.to(known.device), max(1, self._chunk_numbers // head.vocabulary)):
            self._batch_shape = (chunk.positions.shape[0], chunk.positions.shape[1])
            self._observer = partial(_shown_with, chunk_observer, chunk)
            hidden = chunk.of(known).requires_grad_(True)
            hidden.register_hook(partial(chunk.put, gradient))
            with products_of_frozen_layers(self._model):
                logits = behind.logits(hidden)
            losses[chunk.rows] += self._differentiate(logits, chunk.targets(targets), label_generator).to(losses)
        self._observer, self._batch_shape = observer, shape
        behind.hidden.backward(gradient)
        return losses

    def _differentiate(
        self, logits: Float[Tensor, "b t V"], targets: Int[Tensor, "b t"], label_generator: torch.Generator | None
    ) -> Float[Tensor, " b"]:
        """Run the backward pass from logits, and return the losses."""
        known, targets = logits.detach(), targets.to(logits.device)
        if label_generator is not None:
            targets = sampled_targets(known, targets, label_generator)
        losses, gradient = losses_of_targets(known, targets)
        logits.backward(gradient)
        return losses

    def _forward_hook(self, projection: LayerProjection) -> Any:
        name = projection.layer.name

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                return
            order = self._orders.get(name, BY_TOKEN)
            # A layer on another device moves its input there itself, after this hook.
            x = self._per_example(inputs[0].detach(), projection).to(output.device)
            if order.inputs and projection.p_in is not None:
                projected_input = product(x.to(_compute_dtype(x)), projection.p_in)
            else:
                # The model may later write into its own tensor.
                projected_input = x.clone()
            self._open_calls[name] += 1

            def on_output_gradient(dy: Tensor) -> None:
                dy = self._per_example(dy, projection)
                dy = dy.to(_compute_dtype(dy))
                projected_gradient = (
                    dy if projection.p_out is None or not order.outputs else product(dy, projection.p_out)
                )
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


def _shown_with(observer: _ChunkObserver, chunk: HeadChunk, layer: str, calls: TokenCalls) -> None:
    observer(layer, calls, chunk)


def _require_grad(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output.requires_grad_(True)


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
