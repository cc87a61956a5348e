"""What one block costs on an accelerator, held without one: no wait for the device, and no operation by the example.

On the meta device, tensors have shapes and no numbers: whatever asks for a number (`item`, `nonzero`, a copy to the host)
fails there, as it would make an accelerator wait.
"""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes, scored_form
from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments, block_scores

META = torch.device("meta")
SHAPES = {"wide": (64, 256), "square": (64, 64)}
C, K = 4, 100


class Operations(TorchDispatchMode):
    """Counts the operations inside of it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations_of_a_block(codec: FactorCodec, rows: int, n_queries: int) -> int:
    """Return the operations of a block in the middle of a scan."""
    queries = {layer: torch.empty(n_queries, d1 * d2, device=META) for layer, (d1, d2) in SHAPES.items()}
    data = {
        layer: torch.empty(rows, factor_bytes(codec, *shape, C), dtype=torch.uint8, device=META)
        for layer, shape in SHAPES.items()
    }
    leading, positions = (
        torch.empty(n_queries, K, device=META),
        torch.empty(n_queries, K, dtype=torch.long, device=META),
    )
    extremes = ScoreExtremes(K, leading, positions, leading, positions)
    sums = torch.empty(n_queries, dtype=torch.float64, device=META)
    moments = ScoreMoments(rows, sums, sums, sums, sums)
    with Operations() as operations:
        scores = block_scores(queries, {layer: scored_form(data[layer], codec, *SHAPES[layer]) for layer in SHAPES})
        extremes.update(scores, rows)
        moments.update(scores)
    return operations.count


@pytest.mark.parametrize("codec", [FactorCodec.SIGN, FactorCodec.INT4, FactorCodec.BF16])
@pytest.mark.parametrize("n_queries", [1, 10])
def test_a_block_waits_for_no_number_and_takes_as_many_operations_however_many_examples_it_has(codec, n_queries):
    # What is made once for a device.
    operations_of_a_block(codec, 64, n_queries)
    assert operations_of_a_block(codec, 64, n_queries) == operations_of_a_block(codec, 1_024, n_queries)
