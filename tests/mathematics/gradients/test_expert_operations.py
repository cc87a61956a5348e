"""What gradients of experts ask of a device: operations by expert, not by example, and one number of a block on the host."""

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pytest
import torch

from lorif_assets.mathematics.gradients.collector import GradientCollector, TokenBatch
from lorif_assets.mathematics.gradients.layers import select_layers
from lorif_assets.mathematics.gradients.projection import Projection, layer_projection
from lorif_assets.mathematics.operation_counts import OperationCounts
from tests.mathematics.gradients.families import tiny_model

FAMILIES = ("mixtral", "qwen3_moe", "gpt_oss")
BLOCKS = 4
# In torch's dispatcher, a look of the host at a number, and what has a length that the host does not know before.
WAITING = {"_local_scalar_dense", "nonzero", "item", "unique"}


def batch_of(copies: int) -> TokenBatch:
    """The same two examples, one with padding, so many times."""
    ids = torch.tensor([[5, 9, 13, 40, 22, 31, 8, 17], [50, 3, 27, 11, 19, 0, 0, 0]]).repeat(copies, 1)
    mask = ids > 0
    return TokenBatch(ids, mask, torch.where(mask, ids, -100), is_padded_right=True)


@contextmanager
def lists(found: list[int], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Note the sizes of tensors that are made lists inside, which a device has to be waited for."""
    tolist = torch.Tensor.tolist

    def counted(tensor: torch.Tensor) -> Any:
        found.append(tensor.numel())
        return tolist(tensor)

    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "tolist", counted)
        yield


def operations(
    family: str, copies: int, meanwhile: AbstractContextManager[object] | None = None, **fields: Any
) -> Counter[str]:
    model = tiny_model(family, **fields)
    projections = [layer_projection(layer, Projection(factor=2, seed=7)) for layer in select_layers(model)]
    with GradientCollector(model, projections) as collector:
        # Once to find where the head begins.
        collector.stream(batch_of(1), lambda *_: None, 1 << 25)
        with meanwhile or nullcontext(), OperationCounts() as counts:
            collector.stream(batch_of(copies), lambda *_: None, 1 << 25)
    return Counter(counts.cost.operations)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_operations_do_not_grow_with_the_examples_of_a_batch(family: str) -> None:
    assert operations(family, 2) == operations(family, 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_expert_more_costs_its_products_and_nothing_else(family: str) -> None:
    """Its forward and backward product and two projections, for each of its two weights; and products by blocks of experts."""
    few, many = (operations(family, 4, num_experts=n, num_local_experts=n) for n in (4, 12))
    added = many - few
    experts = 8 * BLOCKS
    assert added.total() <= experts * 2 * 4 + BLOCKS * 2 * 3
    assert set(added) <= {"mm", "addmm", "bmm", "zeros"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_host_waits_once_for_a_block_of_experts(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    found = operations(family, 4, lists(looked_at, monkeypatch))
    # And for all blocks once for the tokens that predict a target, whose logits are made; and for the model's mask.
    assert len(looked_at) == BLOCKS + 1
    assert all(found[name] < BLOCKS for name in WAITING)
