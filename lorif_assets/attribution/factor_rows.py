"""The rows of `gradient_factors`: gradients of a shard's examples, factorised batch by batch."""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lorif_assets.attribution.batch_budget import compute_batches
from lorif_assets.attribution.sound_examples import set_aside
from lorif_assets.data.rejected import RejectedRow
from lorif_assets.data.tokenization import TokenizedExample, n_tokens
from lorif_assets.errors import LorifError

if TYPE_CHECKING:
    import torch

    from lorif_assets.attribution.model import AttributedModel
    from lorif_assets.config.sections import BatchSettings
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
    from lorif_assets.mathematics.factors.low_rank import GradientFactors, ScaledMatrices
    from lorif_assets.mathematics.factors.token_gradients import TokenGradients
    from lorif_assets.mathematics.gradients.collector import GradientSink, TokenBatch
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
    half = max(1, batch.gradient_numbers // 2)
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

        batch_tokens = compute_batches(attributed, examples, batch.tokens, compute, progress.log)
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


@dataclass(frozen=True)
class _Waiting:
    """Gradients [n, d1, d2] of some rows of a batch in one layer, formed or as their tokens."""

    layer: str
    rows: slice
    gradients: "torch.Tensor | TokenGradients"


@dataclass(frozen=True)
class _Group:
    """Gradients that are factorised together: of one shape, at one rank, all formed or none."""

    d1: int
    d2: int
    rank: int
    are_formed: bool


class _EncodedFactors:
    """Factors of a shard's examples as bytes, filled in batch by batch.

    At most `max_waiting` numbers of gradients wait for others of their shape; a single slice may have more.
    """

    def __init__(
        self, attributed: "AttributedModel", n_examples: int, bases: "Mapping[str, KfacBases]", max_waiting: int
    ) -> None:
        import torch

        from lorif_assets.mathematics import accelerators
        from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes
        from lorif_assets.mathematics.factors.subspace_iteration import ROUNDS

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
        # None: by LAPACK.
        self._rounds = recipe.factor_rounds or (ROUNDS if accelerators.is_accelerator(self._device) else None)
        self.encoded = {
            layer: torch.empty(n_examples, width, dtype=torch.uint8) for layer, width in self._widths.items()
        }
        self.squares = {
            layer: torch.zeros(record.layer_shapes[layer], dtype=torch.float64, device=self._device) for layer in bases
        }
        self.squared = None if recipe.fisher_share == 1 or not bases else 0
        self.sound = torch.empty(0, dtype=torch.bool, device=self._device)
        self._sampled: list[int] = []
        self._sampled_on_device = torch.empty(0, dtype=torch.int64, device=self._device)
        self._squares_of_batch: dict[str, torch.Tensor] = {}
        self._encoded_of_batch: dict[str, torch.Tensor] = {}
        self._waiting: dict[_Group, list[_Waiting]] = {}
        self._numbers_waiting = 0

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
        import torch

        self.sound = torch.ones(n, dtype=torch.bool, device=self._device)
        self._squares_of_batch = {}
        self._waiting, self._numbers_waiting = {}, 0
        self._encoded_of_batch = {
            layer: torch.empty(n, width, dtype=torch.uint8, device=self._device)
            for layer, width in self._widths.items()
        }
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
        import torch

        from lorif_assets.mathematics.factors.token_gradients import TokenGradients

        x, dy = tokens.x, tokens.dy
        for side in (x, dy):
            # The largest magnitude, which is not finite if one number is not. What is not finite stays in its example: the
            # squares, which are sums over examples, are computed again without it.
            self.sound &= torch.linalg.vector_norm(side, torch.inf, dim=(1, 2)).isfinite()
        if bases := self._bases.get(layer):
            n, (d1, d2) = len(x), self._shapes[layer]
            step = max(1, self._max_waiting // (d1 * d2))
            for start in range(0, n, step):
                rows = slice(start, min(start + step, n))
                some = TokenGradients(x[rows], dy[rows]).at(self._sampled_rows(rows))
                self._add_squares(layer, bases.rotate(some.formed()))
            x, dy = bases.inputs.apply(x), bases.outputs.apply(dy)
        self._wait(layer, slice(0, len(x)), TokenGradients(x, dy))

    def take_gradients(self, layer: str, rows: slice, gradients: "torch.Tensor") -> None:
        """Whiten a layer's gradients of some rows, and sum the squares of the sampled ones."""
        self.sound[rows] &= gradients.isfinite().all(dim=2).all(dim=1)
        # An example that is not finite is set aside, and must not spoil the batch that it is factorised in.
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
        self._wait(layer, rows, gradients)

    def _sampled_rows(self, rows: slice) -> "torch.Tensor | None":
        """Return which of some rows of the batch are sampled, counted from the first of them; None: all."""
        if self.squared is None:
            return None
        first, end = (bisect_left(self._sampled, at) for at in (rows.start, rows.stop))
        return self._sampled_on_device[first:end] - rows.start

    def _add_squares(self, layer: str, rotated: "torch.Tensor") -> None:
        squares, sums = rotated.square().sum(dim=0), self._squares_of_batch
        sums[layer] = sums[layer] + squares if layer in sums else squares

    def _wait(self, layer: str, rows: slice, gradients: "torch.Tensor | TokenGradients") -> None:
        """Keep whitened gradients until others of their shape have come, or too many wait."""
        import torch

        is_formed = isinstance(gradients, torch.Tensor)
        numbers = gradients.numel() if isinstance(gradients, torch.Tensor) else gradients.numbers
        if self._numbers_waiting + numbers > self._max_waiting:
            self.factorise()
        # In rounds, a rank's components are the first of a larger one's.
        rank = self._ranks[layer] if self._rounds is None else 1 << (self._ranks[layer] - 1).bit_length()
        self._waiting.setdefault(_Group(*self._shapes[layer], rank, is_formed), []).append(
            _Waiting(layer, rows, gradients)
        )
        self._numbers_waiting += numbers

    def factorise(self) -> None:
        """Factorise the waiting gradients: layers of equal shape and rank in one call, in rounds all of about one rank."""
        from lorif_assets.mathematics.factors.low_rank import factors_in_rounds, low_rank_factors

        if self._rounds is None:
            for group, waiting in self._waiting.items():
                self._encode(waiting, low_rank_factors(_joined(waiting), group.rank))
        else:
            for rank in sorted({group.rank for group in self._waiting}):
                of_rank = [waiting for group, waiting in self._waiting.items() if group.rank == rank]
                found = factors_in_rounds([_scaled(waiting) for waiting in of_rank], rank, self._rounds)
                for waiting, factors in zip(of_rank, found, strict=True):
                    self._encode(waiting, factors)
                    self._set_aside_overflows(waiting, factors)
        self._waiting, self._numbers_waiting = {}, 0

    def _set_aside_overflows(self, waiting: "Sequence[_Waiting]", factors: "GradientFactors") -> None:
        """Set aside examples whose gradient is not finite though its tokens are."""
        largest = factors.u.abs().amax(dim=(1, 2)).isfinite()
        for one, is_sound in zip(
            waiting, largest.split([one.rows.stop - one.rows.start for one in waiting]), strict=True
        ):
            self.sound[one.rows] &= is_sound

    def _encode(self, waiting: "Sequence[_Waiting]", factors: "GradientFactors") -> None:
        """Encode the factors of layers of one shape at each layer's own rank."""
        from lorif_assets.mathematics.factors.codec import encode

        ranks = [self._ranks[one.layer] for one in waiting]
        of_all = None
        if len(set(ranks)) == 1:
            of_all = encode(factors.leading(slice(None), ranks[0]), self._codec)
        end = 0
        for one, rank in zip(waiting, ranks, strict=True):
            start, end = end, end + one.rows.stop - one.rows.start
            rows = slice(start, end)
            of_layer = encode(factors.leading(rows, rank), self._codec) if of_all is None else of_all[rows]
            self._encoded_of_batch[one.layer][one.rows] = of_layer

    def finish_batch(self, positions: Sequence[int], losses: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        """Put the batch's factors at these positions, and return on the CPU the losses, and which examples are finite."""
        import torch

        self.factorise()
        self.sound &= losses.isfinite()
        # One copy for all layers, so that the device waits for the host only once per batch.
        heads = [
            losses.contiguous().view(torch.uint8).view(len(positions), 4),
            self.sound.view(torch.uint8).unsqueeze(1),
        ]
        copied = torch.cat([*heads, *self._encoded_of_batch.values()], dim=1).cpu()
        of_losses, sound, *encoded_layers = copied.split([4, 1, *self._widths.values()], dim=1)
        for layer, encoded in zip(self._widths, encoded_layers, strict=True):
            self.encoded[layer][positions] = encoded
        # A copy: a single row keeps odd strides otherwise, which an FP32 view cannot have.
        on_cpu = of_losses.clone(memory_format=torch.contiguous_format).view(torch.float32)
        return on_cpu.squeeze(1), sound.squeeze(1).bool()

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


def in_fisher_sample(example: TokenizedExample, share: float, seed: int) -> bool:
    """Return whether an example is one of those that the Fisher diagonal is summed over, by a hash of what it says.

    So it does not depend on other examples, and what was added for an example can be subtracted when it changes.
    """
    digest = blake2b(str(seed).encode(), digest_size=8)
    for part in (example.input_ids, example.labels):
        digest.update(np.asarray(part, dtype=np.int64).tobytes())
    return int.from_bytes(digest.digest(), "little") < share * 2**64


def _joined(waiting: Sequence[_Waiting]) -> "torch.Tensor":
    """Return formed gradients of some layers as one batch."""
    import torch

    formed = [one.gradients for one in waiting if isinstance(one.gradients, torch.Tensor)]
    return torch.cat(formed) if len(formed) > 1 else formed[0]


def _scaled(waiting: Sequence[_Waiting]) -> "ScaledMatrices":
    """Return gradients of some layers, all formed or none, as what subspace iteration multiplies."""
    from lorif_assets.mathematics.factors.low_rank import ScaledMatrices
    from lorif_assets.mathematics.factors.token_gradients import TokenGradients

    of_tokens = [one.gradients for one in waiting if isinstance(one.gradients, TokenGradients)]
    return TokenGradients.joined(of_tokens).scaled() if of_tokens else ScaledMatrices.of(_joined(waiting))


def _binary_column(data: np.ndarray[Any, np.dtype[np.uint8]]) -> pa.LargeBinaryArray:
    """Return [n, bytes] as n binary values, without a copy of the bytes."""
    n, width = data.shape
    offsets = np.arange(n + 1, dtype=np.int64) * width
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
