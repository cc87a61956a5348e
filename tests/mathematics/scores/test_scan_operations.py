"""What one block costs on an accelerator, held without one: no wait for the device, and no operation by the example.

On the meta device, tensors have shapes and no numbers: whatever asks for a number (`item`, `nonzero`, a copy to the host)
fails there, as it would make an accelerator wait.
"""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lorif_assets.mathematics.factors.codec import FactorCodec, factor_bytes, scored_form
from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.scores.relative_influence import Rankings, ScoredBlock
from lorif_assets.mathematics.scores.scoring import Queries, ScoreExtremes, ScoreMoments

META = torch.device("meta")
SHAPES = {"wide": (64, 256), "square": (64, 64)}
C, K = 4, 100


class Operations(TorchDispatchMode):
    """Counts the operations inside of it, and the copies that come from the host."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.uploads = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and args[0].device.type == "cpu" and found.device == META:
            self.uploads += 1
        return found


def queries_of(n: int, query_rank: int | None) -> dict[str, Queries]:
    """Return preconditioned queries, whole or at a rank."""

    def of_layer(d1: int, d2: int) -> Queries:
        if query_rank is None:
            return torch.empty(n, d1 * d2, device=META)
        return GradientFactors(*(torch.empty(n, d, query_rank, device=META) for d in (d1, d2)))

    return {layer: of_layer(*shape) for layer, shape in SHAPES.items()}


def operations_of_a_block(
    codec: FactorCodec, rows: int, n_queries: int, query_rank: int | None = None, c: int = C
) -> Operations:
    """Return the operations of a block in the middle of a scan: scores, sizes, both rankings and moments."""
    data = {
        layer: torch.empty(rows, factor_bytes(codec, *shape, c), dtype=torch.uint8, device=META)
        for layer, shape in SHAPES.items()
    }
    leading, positions = (
        torch.empty(n_queries, K, device=META),
        torch.empty(n_queries, K, dtype=torch.long, device=META),
    )
    extremes = ScoreExtremes(K, leading, positions, leading, positions)
    sums = torch.empty(n_queries, dtype=torch.float64, device=META)
    rankings = Rankings(
        extremes, extremes, ScoreMoments(rows, sums, sums, sums, sums), torch.empty(2 * rows, device=META)
    )
    with Operations() as operations:
        factors = {layer: scored_form(data[layer], codec, *SHAPES[layer]) for layer in SHAPES}
        block = ScoredBlock.of(queries_of(n_queries, query_rank), factors, dict.fromkeys(SHAPES, 1.0))
        rankings.update(block, rows)
    return operations


@pytest.mark.parametrize("codec", list(FactorCodec))
@pytest.mark.parametrize("n_queries", [1, 10, 100])
@pytest.mark.parametrize("query_rank", [None, 8])
@pytest.mark.parametrize("c", [1, C])
def test_a_block_waits_for_no_number_and_takes_as_many_operations_however_many_examples_it_has(
    codec, n_queries, query_rank, c
):
    # What is made once for a device.
    operations_of_a_block(codec, 64, n_queries, query_rank, c)
    few, many = (operations_of_a_block(codec, rows, n_queries, query_rank, c) for rows in (64, 1_024))
    assert few.count == many.count


@pytest.mark.parametrize("codec", list(FactorCodec))
def test_nothing_but_its_codes_goes_to_the_device_for_a_block(codec):
    operations_of_a_block(codec, 64, 10)
    assert operations_of_a_block(codec, 64, 10).uploads == 0
