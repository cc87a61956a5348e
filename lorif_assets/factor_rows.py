"""The rows of `gradient_factors`: gradients of a shard's examples, factorised batch by batch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lorif_assets.corpus.rejected import RejectedRow
from lorif_assets.errors import LorifError

if TYPE_CHECKING:
    from lorif_assets.attributed_model import AttributedModel
    from lorif_assets.corpus.tokenization import TokenizedExample
    from lorif_assets.progress import Progress


def factor_rows(
    attributed: "AttributedModel", examples: "Sequence[TokenizedExample]", batch_tokens: int, progress: "Progress"
) -> tuple[pa.Table, list[RejectedRow]]:
    """Compute the factors of a shard.

    Returns:
        One row per example in the shard's order (example_id, row, loss, n_target_tokens, truncated, and per layer one
        binary column), and the examples that are set aside because their loss or a gradient is not finite.

    Raises:
        LorifError: no example at all has a finite loss and gradients.
    """
    import torch

    from lorif_assets.attribution.factor_codec import FactorCodec, encode, factor_bytes
    from lorif_assets.attribution.low_rank import low_rank_factors

    rank, codec = attributed.recipe.rank, FactorCodec(attributed.recipe.factor_dtype)
    encoded = {
        layer: torch.empty(len(examples), factor_bytes(codec, d1, d2, rank), dtype=torch.uint8)
        for layer, (d1, d2) in attributed.record.layer_shapes.items()
    }
    losses, finite = torch.empty(len(examples)), torch.zeros(len(examples), dtype=torch.bool)
    for positions, batch in attributed.gradients(examples, batch_tokens):
        sound = batch.losses.isfinite()
        for layer, gradients in batch.gradients.items():
            sound &= gradients.isfinite().all(dim=2).all(dim=1).to(sound.device)
            # An example that is not finite is set aside below; it must not spoil the batch it is factorised in.
            factors = low_rank_factors(gradients.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0), rank)
            encoded[layer][positions] = encode(factors, codec).cpu()
        losses[positions], finite[positions] = batch.losses.float().cpu(), sound.cpu()
        progress.advance(sum(len(examples[i].input_ids) for i in positions))
    if not bool(finite.any()):
        raise LorifError(
            f"the checkpoint {attributed.record.name!r} gives no finite loss or gradient for any of {len(examples)} "
            'examples; are its weights finite? With `recipe.model_dtype = "bfloat16"` or "as_saved", try "float32"'
        )
    kept = finite.nonzero().squeeze(1).tolist()
    table = pa.table(
        {
            "example_id": pa.array([examples[i].example_id for i in kept], pa.string()),
            "row": pa.array([examples[i].row for i in kept], pa.int64()),
            "loss": losses[kept].numpy(),
            "n_target_tokens": pa.array([examples[i].n_targets for i in kept], pa.int32()),
            "truncated": pa.array([examples[i].truncated for i in kept], pa.bool_()),
            **{layer: _binary_column(data[kept].numpy()) for layer, data in encoded.items()},
        }
    )
    return table, [
        RejectedRow(
            examples[i].example_id,
            examples[i].row,
            "the loss or a gradient is not finite",
            attributed.tokenizer.decode(examples[i].input_ids[:40]),
        )
        for i in (~finite).nonzero().squeeze(1).tolist()
    ]


def _binary_column(data: np.ndarray[Any, np.dtype[np.uint8]]) -> pa.LargeBinaryArray:
    """Return [n, bytes] as n binary values, without a copy of the bytes."""
    n, width = data.shape
    offsets = np.arange(n + 1, dtype=np.int64) * width
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), n, [None, pa.py_buffer(offsets), pa.py_buffer(data)])
