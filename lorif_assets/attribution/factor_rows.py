"""The rows of `gradient_factors`: gradients of a shard's examples, factorised batch by batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lorif_assets.attribution.batch_budget import compute_batches
from lorif_assets.data.rejected import RejectedRow
from lorif_assets.data.tokenization import TokenizedExample, n_tokens
from lorif_assets.errors import LorifError

if TYPE_CHECKING:
    import torch

    from lorif_assets.attribution.model import AttributedModel
    from lorif_assets.config.settings import BatchSettings
    from lorif_assets.mathematics.curvature.ekfac import KfacBases
    from lorif_assets.mathematics.gradients.collector import GradientSink
    from lorif_assets.progress import Progress


@dataclass(frozen=True)
class ShardFactors:
    """The factors of a shard's gradients, with what was measured on the way.

    `rows` has one row per example in the shard's order (example_id, row, loss, n_target_tokens, truncated, and per layer
    one binary column). `not_finite` lists the examples set aside because their loss or a gradient is not finite.
    `squares` has for each layer the sum of R * R [d1, d2] over the rows, in FP64; it is empty without whitening.
    `batch_tokens` is the token budget that every batch fitted in: the setting, or less if memory ran out.
    """

    rows: pa.Table
    not_finite: list[RejectedRow]
    squares: "Mapping[str, torch.Tensor]"
    batch_tokens: int


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
                sink = factors.start_batch(len(remaining))
                batch_losses = collector.stream(tokens, sink, half).float()
                sound = (factors.sound & batch_losses.isfinite()).cpu()
                losses[remaining], finite[remaining] = batch_losses.cpu(), sound
                if not bases or bool(sound.all()):
                    factors.finish_batch(remaining)
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
    not_finite = [
        RejectedRow(
            examples[i].example_id,
            examples[i].row,
            "the loss or a gradient is not finite",
            attributed.tokenizer.decode(examples[i].input_ids[:40]),
        )
        for i in (~finite).nonzero().squeeze(1).tolist()
    ]
    return ShardFactors(table, not_finite, factors.squares, batch_tokens)


@dataclass(frozen=True)
class _Gradients:
    """Gradients [n, d1, d2] of some rows of a batch in one layer."""

    layer: str
    rows: slice
    gradients: "torch.Tensor"


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
        self._codec, self._rounds = FactorCodec(recipe.factor_dtype), recipe.factor_rounds
        self._bases, self._max_waiting = bases, max_waiting
        self._ranks = (
            record.frozen_bases.ranks if record.frozen_bases else dict.fromkeys(record.layer_shapes, recipe.rank)
        )
        self._widths = {
            layer: factor_bytes(self._codec, d1, d2, self._ranks[layer])
            for layer, (d1, d2) in record.layer_shapes.items()
        }
        self._device = attributed.device
        self.encoded = {
            layer: torch.empty(n_examples, width, dtype=torch.uint8) for layer, width in self._widths.items()
        }
        self.squares = {
            layer: torch.zeros(record.layer_shapes[layer], dtype=torch.float64, device=self._device) for layer in bases
        }
        self.sound = torch.empty(0, dtype=torch.bool, device=self._device)
        self._squares_of_batch: dict[str, torch.Tensor] = {}
        self._encoded_of_batch: dict[str, torch.Tensor] = {}
        self._waiting: dict[tuple[int, int, int], list[_Gradients]] = {}
        self._numbers_waiting = 0

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

        def sink(layer: str, rows: slice, gradients: torch.Tensor) -> None:
            self.sound[rows] &= gradients.isfinite().all(dim=2).all(dim=1)
            # An example that is not finite is set aside, and must not spoil the batch that it is factorised in.
            gradients = gradients.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
            if layer in self._bases:
                gradients = self._bases[layer].rotate(gradients)
                squares, sums = gradients.square().sum(dim=0), self._squares_of_batch
                sums[layer] = sums[layer] + squares if layer in sums else squares
                gradients *= self._bases[layer].scale
            if self._numbers_waiting + gradients.numel() > self._max_waiting:
                self._factorise()
            _, d1, d2 = gradients.shape
            waiting = self._waiting.setdefault((d1, d2, self._ranks[layer]), [])
            waiting.append(_Gradients(layer, rows, gradients))
            self._numbers_waiting += gradients.numel()

        return sink

    def _factorise(self) -> None:
        """Factorise the waiting gradients; layers of equal shape and rank share one call."""
        import torch

        from lorif_assets.mathematics.factors.codec import encode
        from lorif_assets.mathematics.factors.low_rank import low_rank_factors

        rounds = self._rounds
        factorised = partial(low_rank_factors, rounds=rounds) if rounds else low_rank_factors
        for (_, _, rank), waiting in self._waiting.items():
            gradients_of_shape = [one.gradients for one in waiting]
            factors = factorised(
                torch.cat(gradients_of_shape) if len(gradients_of_shape) > 1 else gradients_of_shape[0], rank
            )
            encoded = encode(factors, self._codec).split([len(gradients) for gradients in gradients_of_shape])
            for one, of_layer in zip(waiting, encoded, strict=True):
                self._encoded_of_batch[one.layer][one.rows] = of_layer
        self._waiting, self._numbers_waiting = {}, 0

    def finish_batch(self, positions: Sequence[int]) -> None:
        """Put the batch's factors at these positions, and add its squares; with bases, all its examples are finite."""
        import torch

        self._factorise()
        # One copy for all layers, so that the device waits for the host only once per batch.
        encoded_layers = torch.cat(list(self._encoded_of_batch.values()), dim=1).cpu()
        for layer, encoded in zip(self._widths, encoded_layers.split(list(self._widths.values()), dim=1), strict=True):
            self.encoded[layer][positions] = encoded
        for layer, squares in self._squares_of_batch.items():
            self.squares[layer] += squares


def _binary_column(data: np.ndarray[Any, np.dtype[np.uint8]]) -> pa.LargeBinaryArray:
    """Return [n, bytes] as n binary values, without a copy of the bytes."""
    n, width = data.shape
    offsets = np.arange(n + 1, dtype=np.int64) * width
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
