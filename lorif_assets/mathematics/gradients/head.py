"""A causal language model cut in two: its decoder, and what makes logits of a token's last hidden state.

Logits are the largest tensor of a pass over a large vocabulary, and each token's depend on its own hidden state alone. So
the decoder runs on the whole batch, and the rest chunk by chunk: through the model's own code, with the decoder replaced
by hidden states that are known, so that biases, scales, soft caps and heads of several layers are what the model says.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lorif_assets.mathematics.gradients.replaced_forward import replaced_forward
from lorif_assets.mathematics.gradients.token_losses import (
    IGNORED_LABEL,
    losses_of_targets,
    next_tokens,
    summed_cross_entropies,
)

CHUNK_NUMBERS = 1 << 25
"""Logits that are held at a time: 128 MiB in FP32, of which their softmax and gradient are copies."""
_BYTES_FOR_LOGIT = 256
"""Of a GPU's free memory for each logit that is held: they and their copies then take a twentieth of it."""
_AGREEMENT = 2e-3


@dataclass(frozen=True)
class Head:
    """What follows a model's decoder. `decoder` is the decoder's module path, `vocabulary` the number of logits of a token."""

    decoder: str
    vocabulary: int

    def holds(self, layer: str) -> bool:
        """Whether a layer, by its module path, belongs to the head."""
        return not layer.startswith(f"{self.decoder}.")


@dataclass(frozen=True)
class Decoded:
    """A batch behind the decoder; `hidden` still has the graph of the decoder's pass."""

    model: nn.Module
    head: Head
    output: Any
    hidden: Float[Tensor, "B T H"]
    device: torch.device
    """Of the batch, and of logits; a model that is spread over devices has its hidden states on another."""

    def logits(self, hidden: Float[Tensor, "b t H"]) -> Float[Tensor, "b t V"]:
        """Return the logits of some hidden states by the model's own code."""
        decoder = self.model.get_submodule(self.head.decoder)
        with replaced_forward(decoder, lambda *_, **__: _with_hidden(self.output, hidden), moves_inputs=False):
            ids = torch.zeros(hidden.shape[:2], dtype=torch.long, device=self.device)
            logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits


@dataclass(frozen=True)
class HeadChunk:
    """Tokens of consecutive examples whose logits are made together, or a part of a single example's tokens."""

    rows: slice
    positions: Int[Tensor, "b t"]
    """Of the tokens in their examples."""
    is_token: Bool[Tensor, "b t"]
    """False where an example has fewer tokens in the chunk than another."""
    completes_rows: bool
    """Whether no later chunk has tokens of the same example."""

    def of(self, values: Tensor) -> Tensor:
        """Return the chunk's part of values [B, T, ...] by token, as [b, t, ...]."""
        return values[self._rows(values.device), self.positions.to(values.device)]

    def targets(self, targets: Int[Tensor, "B T"]) -> Int[Tensor, "b t"]:
        """Return what the chunk's tokens are to predict, and nothing where there is none."""
        return self.of(targets).masked_fill(~self.is_token.to(targets.device), IGNORED_LABEL)

    def put(self, into: Tensor, values: Tensor) -> None:
        """Write values [b, t, ...] of the chunk's tokens into their places in a tensor [B, T, ...].

        Every place of the chunk is written, one without a token as it was: to write only some, a GPU's host would wait to
        hear how many they are.
        """
        at = self._rows(into.device), self.positions.to(into.device)
        is_token = self.is_token.to(into.device)
        is_written = is_token.view(*is_token.shape, *[1] * (into.ndim - 2))
        into[at] = torch.where(is_written, values.to(into), into[at])

    def _rows(self, device: torch.device) -> Int[Tensor, "b 1"]:
        return torch.arange(self.rows.start, self.rows.stop, device=device).unsqueeze(1)


def chunk_numbers_on(device: torch.device) -> int:
    """Return how many logits are held at a time: on a GPU, which chunks keep waiting for their host, what suits its memory."""
    if device.type != "cuda":
        return CHUNK_NUMBERS
    free, _ = torch.cuda.mem_get_info(device)
    return max(CHUNK_NUMBERS, 1 << ((free // _BYTES_FOR_LOGIT).bit_length() - 1))


def head_of(model: nn.Module) -> Head | None:
    """Return a model's head, or None where the model cannot be cut: then its logits are made at once.

    Two tokens are run through the model once to find out: whole, and each token by itself behind the decoder.
    """
    if model not in _HEADS:
        # Without numbers there is nothing to compare.
        _HEADS[model] = None if next(model.parameters()).is_meta else _found(model)
    return _HEADS[model]


def possible_decoders(model: nn.Module) -> Iterator[nn.Module]:
    """Yield what may be a model's decoder, the likeliest first; some models call a part of their base model directly."""
    parts = set(model.modules()) - {model}
    candidates: list[object] = [getattr(model, "base_model", None)]
    if callable(get_decoder := getattr(model, "get_decoder", None)):
        candidates.append(get_decoder())
    # Some call themselves their base model.
    embeddings: object = model.get_input_embeddings()  # type: ignore[operator]
    candidates += [part for part in model.children() if embeddings in set(part.modules()) - {part}]
    yield from (part for part in candidates if part in parts)


def decoded(model: nn.Module, head: Head, inputs: dict[str, Any]) -> Decoded:
    """Run a model's decoder on a batch; of the batch's logits, a single token's are made."""
    outputs: list[Any] = []

    def keep(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> Any:
        outputs.append(output)
        return _with_hidden(output, output.last_hidden_state[:1, :1].detach())

    hook = model.get_submodule(head.decoder).register_forward_hook(keep)
    try:
        model(**inputs)
    finally:
        hook.remove()
    (output,) = outputs
    return Decoded(model, head, output, output.last_hidden_state, inputs["input_ids"].device)


def head_chunks(needed: Bool[Tensor, "B T"], max_tokens: int) -> Iterator[HeadChunk]:
    """Cut the tokens that need logits into chunks, example by example; every example is in at least one.

    Args:
        needed: which tokens of which example.
        max_tokens: examples x tokens of a chunk; a longer example is in several chunks of its own.
    """
    # Needed tokens come first, in their order.
    positions = needed.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    counts = needed.sum(dim=1).clamp(min=1).cpu().tolist()
    for rows in _row_groups(counts, max_tokens):
        longest = max(counts[rows])
        step = longest if rows.stop - rows.start > 1 else max_tokens
        for start in range(0, longest, step):
            stop = min(start + step, longest)
            some = positions[rows, start:stop]
            yield HeadChunk(rows, some, needed[rows].gather(1, some), stop == longest)


def losses_in_chunks(
    model: nn.Module, inputs: dict[str, Any], labels: Int[Tensor, "B T"], chunk_numbers: int = CHUNK_NUMBERS
) -> Float[Tensor, " B"]:
    """Return each example's cross-entropy summed over its target tokens, in FP32 at least, without gradients.

    Args:
        model: in eval mode.
        inputs: what it is called with.
        labels: each predicted from the tokens before it; -100 carries no loss.
        chunk_numbers: logits that are held at a time.
    """
    targets = next_tokens(labels)
    with torch.no_grad():
        head = head_of(model)
        if head is None:
            return losses_of_targets(model(**inputs).logits, targets)[0]
        behind = decoded(model, head, inputs)
        losses = behind.hidden.new_zeros(len(labels), dtype=torch.promote_types(behind.hidden.dtype, torch.float32))
        for chunk in head_chunks(targets != IGNORED_LABEL, max(1, chunk_numbers // head.vocabulary)):
            logits = behind.logits(chunk.of(behind.hidden))
            losses[chunk.rows] += losses_of_targets(logits, chunk.targets(targets))[0].to(losses)
    return losses


def losses_with_graph(
    model: nn.Module, inputs: dict[str, Any], labels: Int[Tensor, "B T"], chunk_numbers: int = CHUNK_NUMBERS
) -> Float[Tensor, " B"]:
    """Return the same losses with their graph: each chunk's logits are made again for its backward pass, and never kept.

    Args:
        model: in eval mode; gradients flow to whatever requires one, the head's own weights too.
        inputs: what it is called with.
        labels: each predicted from the tokens before it; -100 carries no loss.
        chunk_numbers: logits that are held at a time.
    """
    targets, head = next_tokens(labels), head_of(model)
    if head is None:
        return summed_cross_entropies(model(**inputs).logits, targets)
    behind = decoded(model, head, inputs)

    def of_chunk(hidden: Tensor, chunk_targets: Tensor) -> Tensor:
        return summed_cross_entropies(behind.logits(hidden), chunk_targets)

    losses: list[Tensor] = []
    for chunk in head_chunks(targets != IGNORED_LABEL, max(1, chunk_numbers // head.vocabulary)):
        found = checkpoint(
            of_chunk, chunk.of(behind.hidden), chunk.targets(targets), use_reentrant=False, preserve_rng_state=False
        )
        # A long example's loss is the sum of those of its chunks, which follow one another.
        is_continued = chunk.rows.start < len(losses)
        losses[chunk.rows.start :] = [losses[-1] + found[0]] if is_continued else [*found]
    return torch.stack(losses)


def _row_groups(counts: Sequence[int], max_tokens: int) -> Iterator[slice]:
    start, longest = 0, 0
    for row, count in enumerate(counts):
        if row > start and (row + 1 - start) * max(longest, count) > max_tokens:
            yield slice(start, row)
            start, longest = row, 0
        longest = max(longest, count)
    yield slice(start, len(counts))


def _found(model: nn.Module) -> Head | None:
    names = {id(module): name for name, module in model.named_modules()}
    heads = (_cut(model, names[id(decoder)]) for decoder in possible_decoders(model))
    return next((head for head in heads if head), None)


def _cut(model: nn.Module, decoder: str) -> Head | None:
    """Return the head behind a decoder, if the model's logits are the same with it as without."""
    ids = torch.arange(2, device=next(model.parameters()).device).unsqueeze(0)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    try:
        with torch.no_grad():
            expected = model(**inputs).logits
            behind = decoded(model, Head(decoder, expected.shape[-1]), inputs)
            found = torch.cat([behind.logits(behind.hidden[:, at : at + 1]) for at in range(ids.shape[1])], dim=1)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        # The model does something else with its decoder.
        return None
    if found.shape != expected.shape:
        return None
    tolerance = max(_AGREEMENT, 4 * torch.finfo(expected.dtype).eps)
    is_same = bool((found - expected).abs().max() <= tolerance * expected.abs().max())
    return behind.head if is_same else None


def _with_hidden(output: Any, hidden: Tensor) -> Any:
    """Return a decoder's output, an ordered mapping, with other hidden states."""
    return type(output)(**{**output, "last_hidden_state": hidden})


_HEADS: WeakKeyDictionary[nn.Module, Head | None] = WeakKeyDictionary()
