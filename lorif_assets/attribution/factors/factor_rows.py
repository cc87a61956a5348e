"""The rows of `gradient_factors`: gradients of a shard's examples, factorised batch by batch."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lorif_assets.attribution.factors.batch_budget import compute_batches
from lorif_assets.attribution.factors.sound_examples import set_aside
from lorif_assets.attribution.factors.waiting_gradients import LayerGradients, WaitingGradients, rounds_on
from lorif_assets.attribution.recipes.gradient_room import gradient_room
from lorif_assets.data.rows.rejected import RejectedRow
from lorif_assets.data.tokens.tokenization import TokenizedExample, n_tokens
from lorif_assets.errors import LorifError

if TYPE_CHECKING:
    import torch

    from lorif_assets.attribution.checkpoints.model import AttributedModel
    from lorif_assets.config.sections import BatchSettings
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
    from lorif_assets.mathematics.factors.low_rank import GradientFactors
    from lorif_assets.mathematics.factors.token_gradients import TokenGradients
    from lorif_assets.mathematics.gradients.collector import TokenBatch
    from lorif_assets.mathematics.gradients.gradient_sinks import GradientSink
    from lorif_assets.mathematics.gradients.layer_calls import TokenCalls
    from lorif_assets.progress import Progress


@dataclass(frozen=True)
class ShardFactors:
    """The factors of a shard's gradients, with what was measured on the way.

    `rows` has one row per example in the shard's order (example_id, row, loss, n_target_tokens, truncated, and per layer
    one binary column). `not_finite` lists the examples set aside because their loss or a gradient is not finite.
    `squares` has for each layer the sum of R * R [d1, d2] over the rows, in FP64; it is empty without whitening. With
    `recipe.fisher_share` they are over `squared` of the rows.
    `batch_tokens` is the token budget that every batch fitted in: the setting, or less if memory ran out.
    """

    rows: pa.Table
    not_finite: list[RejectedRow]
    squares: "Mapping[str, torch.Tensor]"
    batch_tokens: int
    squared: int | None = None


def factor_rows(
    attributed: "AttributedModel",
    examples: "Sequence[TokenizedExample]",
    bases: "Mapping[str, KfacBases]",
    batch: "BatchSettings",
    progress: "Progress",
) -> ShardFactors:
    """Compute the factors of a shard.

    Args:
        attributed: the checkpoint.
        examples: of the shard.
        bases: of each layer, to whiten its gradients in; empty without whitening.
        batch: budgets.
        progress: advances by tokens.

    Raises:
        LorifError: no example has a finite loss and finite gradients, or a single one does not fit in memory.
    """
    import torch

    # Half of the budget for the gradients being computed, half for those that wait for others of their shape.
    half = max(1, gradient_room(batch, attributed.device) // 2)
    factors = _EncodedFactors(attributed, len(examples), bases, half)
    losses, finite = torch.empty(len(examples)), torch.zeros(len(examples), dtype=torch.bool)
    with attributed.collector() as collector:

        def compute(positions: list[int]) -> None:
            remaining = positions
            while remaining:
                tokens = attributed.batch(examples, remaining)
                factors.sample([examples[position] for position in remaining])
                sink = factors.start_batch(len(remaining))
                batch_losses = collector.stream(tokens, sink, half).float()
                losses[remaining], sound = factors.finish_batch(remaining, batch_losses)
                finite[remaining] = sound
                if not bases or bool(sound.all()):
                    factors.add_squares()
                    break
                # Sums of squares are over whole batches, so repeat this one without the examples that are set aside.
                remaining = [position for position, is_sound in zip(remaining, sound.tolist(), strict=True) if is_sound]
            progress.advance(n_tokens(examples[i] for i in positions))

        batch_tokens = compute_batches(attributed, examples, batch.tokens_on(attributed.device), compute, progress.log)
    if not bool(finite.any()):
        raise LorifError(
            f"the checkpoint {attributed.record.name!r} gives no finite loss or gradient for any of {len(examples)} "
            'examples; are its weights finite? With `recipe.model_dtype = "bfloat16"` or "as_saved", try "float32"'
        )
    rows = finite.nonzero().squeeze(1).tolist()
    table = pa.table(
        {
            "example_id": pa.array([examples[i].example_id for i in rows], pa.string()),
            "row": pa.array([examples[i].row for i in rows], pa.int64()),
            "loss": losses[rows].numpy(),
            "n_target_tokens": pa.array([examples[i].n_targets for i in rows], pa.int32()),
            "truncated": pa.array([examples[i].truncated for i in rows], pa.bool_()),
            **{layer: _binary_column(data[rows].numpy()) for layer, data in factors.encoded.items()},
        }
    )
    not_finite = [set_aside(attributed, examples[i]) for i in (~finite).nonzero().squeeze(1).tolist()]
    return ShardFactors(table, not_finite, factors.squares, batch_tokens, factors.squared)


def run_batch(
    attributed: "AttributedModel", batch: "TokenBatch", bases: "Mapping[str, KfacBases]", gradient_numbers: int
) -> None:
    """Compute the factors of one batch as `factor_rows` does, and leave them on the device: to count what that takes.

    Of the examples, the first ones are the sample of `recipe.fisher_share`.
    """
    n, half = len(batch.input_ids), max(1, gradient_numbers // 2)
    factors = _EncodedFactors(attributed, n, bases, half)
    factors.sample_rows(range(math.ceil(attributed.recipe.fisher_share * n)))
    with attributed.collector() as collector:
        collector.stream(batch, factors.start_batch(n), half)
    factors.factorise()


class _EncodedFactors:
    """Factors of a shard's examples as bytes, filled in batch by batch.

    At most `max_waiting` numbers of gradients wait for others of their shape; a single slice may have more.
    """

    def __init__(
        self, attributed: "AttributedModel", n_examples: int, bases: "Mapping[str, KfacBases]", max_waiting: int
    ) -> None:
        import torch

        from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes

        record, recipe = attributed.record, attributed.recipe
        self._recipe, self._shapes = recipe, record.layer_shapes
        self._codec = FactorCodec(recipe.factor_dtype)
        self._bases, self._max_waiting = bases, max_waiting
        self._ranks = (
            record.frozen_bases.ranks if record.frozen_bases else dict.fromkeys(record.layer_shapes, recipe.rank)
        )
        self._widths = {
            layer: factor_bytes(self._codec, d1, d2, self._ranks[layer])
            for layer, (d1, d2) in record.layer_shapes.items()
        }
        self._device = attributed.device
        self._rounds = rounds_on(self._device, recipe.factor_rounds)
        self.encoded = {
            layer: torch.empty(n_examples, width, dtype=torch.uint8) for layer, width in self._widths.items()
        }
        self.squares = {
            layer: torch.zeros(record.layer_shapes[layer], dtype=torch.float64, device=self._device) for layer in bases
        }
        self.squared = None if recipe.fisher_share == 1 or not bases else 0
        self._sampled: list[int] = []
        self._sampled_on_device = torch.empty(0, dtype=torch.int64, device=self._device)
        self._rows_of_batch = 0
        self._squares_of_batch: dict[str, torch.Tensor] = {}
        self._encoded_of_batch: dict[str, list[tuple[slice, torch.Tensor]]] = {}
        # The largest magnitudes of gradients or factors: not finite where one number is not.
        self._largest: list[tuple[slice, torch.Tensor]] = []
        self._waiting = WaitingGradients(self._ranks, self._rounds, max_waiting, self._take)

    def sample(self, examples: "Sequence[TokenizedExample]") -> None:
        """Choose those of the next batch's examples whose squares are summed, where not all are."""
        share, seed = self._recipe.fisher_share, self._recipe.seed
        self.sample_rows([row for row, example in enumerate(examples) if in_fisher_sample(example, share, seed)])

    def sample_rows(self, rows: Sequence[int]) -> None:
        """Choose rows of the next batch."""
        import torch

        if self.squared is None:
            return
        self._sampled = list(rows)
        self._sampled_on_device = torch.tensor(self._sampled, dtype=torch.int64).to(self._device, non_blocking=True)

    def start_batch(self, n: int) -> "GradientSink":
        """Return the sink for the gradients of n examples; its results stay on the device until the batch is finished."""
        self._rows_of_batch, self._largest, self._squares_of_batch = n, [], {}
        self._waiting.clear()
        self._encoded_of_batch = {layer: [] for layer in self._widths}
        return _BatchSink(self)

    def takes_tokens(self, layer: str, tokens: int) -> bool:
        """Return whether a layer's gradients are factorised without being formed."""
        from lorif_assets.mathematics.factors.token_gradients import FactorWork

        if self._rounds is None:
            return False
        bases = self._bases.get(layer)
        whitening = (bases.inputs.columns, bases.outputs.columns) if bases else (0, 0)
        share = self._recipe.fisher_share if bases else 0.0
        work = FactorWork(tokens, *self._shapes[layer], self._ranks[layer], self._rounds, whitening, share)
        return work.is_cheaper_from_tokens

    def take_tokens(self, layer: str, tokens: "TokenGradients") -> None:
        """Whiten a layer's gradients of the batch as tokens, and sum the squares of the sampled examples' formed ones."""
        from lorif_assets.mathematics.factors.low_rank import largest_magnitude
        from lorif_assets.mathematics.factors.token_gradients import TokenGradients

        x, dy = tokens.x, tokens.dy
        for side in (x, dy):
            # What is not finite stays in its example: the squares, which are sums over examples, are computed again without it.
            self._largest.append((slice(0, len(side)), largest_magnitude(side).flatten()))
        if bases := self._bases.get(layer):
            n, (d1, d2) = len(x), self._shapes[layer]
            step = max(1, self._max_waiting // (d1 * d2))
            for start in range(0, n, step):
                rows = slice(start, min(start + step, n))
                some = TokenGradients(x[rows], dy[rows]).at(self._sampled_rows(rows))
                self._add_squares(layer, bases.rotate(some.formed()))
            x, dy = bases.inputs.apply(x), bases.outputs.apply(dy)
        self._waiting.add(layer, slice(0, len(x)), TokenGradients(x, dy))

    def take_gradients(self, layer: str, rows: slice, gradients: "torch.Tensor") -> None:
        """Whiten a layer's gradients of some rows, and sum the squares of the sampled ones."""
        from lorif_assets.mathematics.factors.low_rank import largest_magnitude

        self._largest.append((rows, largest_magnitude(gradients).flatten()))
        if self._rounds is None:
            # LAPACK fails on what is not finite; in rounds it stays in its example, and the squares are computed again.
            gradients = gradients.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
        if bases := self._bases.get(layer):
            sampled = self._sampled_rows(rows)
            if bases.is_whole:
                rotated = bases.rotate(gradients)
                self._add_squares(layer, rotated if sampled is None else rotated[sampled])
                gradients = rotated.mul_(bases.scale)
            else:
                self._add_squares(layer, bases.rotate(gradients if sampled is None else gradients[sampled]))
                gradients = bases.whitened(gradients)
        self._waiting.add(layer, rows, gradients)

    def _sampled_rows(self, rows: slice) -> "torch.Tensor | None":
        """Return which of some rows of the batch are sampled, counted from the first of them; None: all."""
        if self.squared is None:
            return None
        first, end = (bisect_left(self._sampled, at) for at in (rows.start, rows.stop))
        return self._sampled_on_device[first:end] - rows.start

    def _add_squares(self, layer: str, rotated: "torch.Tensor") -> None:
        from lorif_assets.mathematics.matrix_products import sum_of_squares

        squares, sums = sum_of_squares(rotated), self._squares_of_batch
        sums[layer] = sums[layer] + squares if layer in sums else squares

    def factorise(self) -> None:
        """Factorise and encode what waits."""
        self._waiting.factorise()

    def _take(self, waiting: "Sequence[LayerGradients]", factors: "GradientFactors") -> None:
        self._encode(waiting, factors)
        if self._rounds is not None:
            self._set_aside_overflows(waiting, factors)

    def _set_aside_overflows(self, waiting: "Sequence[LayerGradients]", factors: "GradientFactors") -> None:
        """Set aside examples whose gradient is not finite though its tokens are."""
        largest = factors.u.abs().amax(dim=(1, 2))
        for one, of_layer in zip(waiting, largest.split([_length(one.rows) for one in waiting]), strict=True):
            self._largest.append((one.rows, of_layer))

    def _encode(self, waiting: "Sequence[LayerGradients]", factors: "GradientFactors") -> None:
        """Encode the factors of layers of one shape, each layer's at its own rank."""
        from lorif_assets.mathematics.factors.codec import encode, has_records

        ranks = [self._ranks[one.layer] for one in waiting]
        # Components are encoded one by one, so that a layer's are the first of the highest rank's.
        together = has_records(self._codec) or len(set(ranks)) == 1
        of_all = encode(factors.leading(slice(None), max(ranks)), self._codec) if together else None
        end = 0
        for one, rank in zip(waiting, ranks, strict=True):
            start, end = end, end + _length(one.rows)
            rows = slice(start, end)
            encoded = encode(factors.leading(rows, rank), self._codec) if of_all is None else of_all[rows]
            self._encoded_of_batch[one.layer].append((one.rows, encoded[:, : self._widths[one.layer]]))

    def finish_batch(self, positions: Sequence[int], losses: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        """Put the batch's factors at these positions, and return on the CPU the losses, and which examples are finite."""
        import torch

        self.factorise()
        sound = losses.isfinite()
        for rows, largest in self._largest:
            if _length(rows) < self._rows_of_batch:
                sound[rows] &= largest.isfinite()
        whole = [largest for rows, largest in self._largest if _length(rows) == self._rows_of_batch]
        if whole:
            sound &= torch.stack(whole).isfinite().all(dim=0)
        # One copy for all layers, so that the device waits for the host only once per batch.
        heads = [
            losses.contiguous().view(torch.uint8).view(len(positions), 4),
            sound.view(torch.uint8).unsqueeze(1),
        ]
        encoded_of_batch = [_in_rows(parts) for parts in self._encoded_of_batch.values()]
        copied = torch.cat([*heads, *encoded_of_batch], dim=1).cpu()
        of_losses, of_sound, *encoded_layers = copied.split([4, 1, *self._widths.values()], dim=1)
        for layer, encoded in zip(self._widths, encoded_layers, strict=True):
            self.encoded[layer][positions] = encoded
        # A copy: a single row keeps odd strides otherwise, which an FP32 view cannot have.
        on_cpu = of_losses.clone(memory_format=torch.contiguous_format).view(torch.float32)
        return on_cpu.squeeze(1), of_sound.squeeze(1).bool()

    def add_squares(self) -> None:
        """Add the batch's squares to the shard's; with bases, all its examples are finite."""
        for layer, squares in self._squares_of_batch.items():
            self.squares[layer] += squares
        if self.squared is not None:
            self.squared += len(self._sampled)


@dataclass(frozen=True)
class _BatchSink:
    """Takes the gradients of one batch, formed or as tokens."""

    factors: _EncodedFactors

    def __call__(self, layer: str, rows: slice, gradients: "torch.Tensor") -> None:
        self.factors.take_gradients(layer, rows, gradients)

    def takes_tokens(self, layer: str, tokens: int) -> bool:
        return self.factors.takes_tokens(layer, tokens)

    def take_tokens(self, layer: str, calls: "TokenCalls") -> None:
        from lorif_assets.mathematics.factors.token_gradients import TokenGradients

        self.factors.take_tokens(layer, TokenGradients.of_calls(calls))


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _in_rows(parts: "Sequence[tuple[slice, torch.Tensor]]") -> "torch.Tensor":
    """Return parts of a batch by their rows as one."""
    import torch

    ordered = [part for _, part in sorted(parts, key=lambda part: part[0].start)]
    return ordered[0] if len(ordered) == 1 else torch.cat(ordered)


def in_fisher_sample(example: TokenizedExample, share: float, seed: int) -> bool:
    """Return whether an example is one of those that the Fisher diagonal is summed over, by a hash of what it says.

    So it does not depend on other examples, and what was added for an example can be subtracted when it changes.
    """
    digest = blake2b(str(seed).encode(), digest_size=8)
    for part in (example.input_ids, example.labels):
        digest.update(np.asarray(part, dtype=np.int64).tobytes())
    return int.from_bytes(digest.digest(), "little") < share * 2**64


def _binary_column(data: np.ndarray[Any, np.dtype[np.uint8]]) -> pa.LargeBinaryArray:
    """Return [n, bytes] as n binary values, without a copy of the bytes."""
    n, width = data.shape
    offsets = np.arange(n + 1, dtype=np.int64) * width
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
