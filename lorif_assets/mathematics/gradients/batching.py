"""Token-budget batches: examples of similar length share a batch, so that little of it is padding."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64

from lorif_assets.mathematics.gradients.collector import TokenBatch
from lorif_assets.mathematics.gradients.token_losses import IGNORED_LABEL

TokenIds = Sequence[int] | Int64[np.ndarray, " T"]


def token_budget_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Cut the examples, longest first, into batches whose padded size stays within the budget.

    Args:
        lengths: tokens of each example.
        max_tokens: rows x longest row of a batch; a longer example is a batch of its own.

    Returns:
        Index lists that partition range(len(lengths)). The largest batch comes first, so that what does not
        fit in memory fails at once.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        longest = lengths[batches[-1][0]] if batches else 0
        if batches and (len(batches[-1]) + 1) * longest <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return sorted(batches, key=lambda batch: -len(batch) * lengths[batch[0]])


def pad_right(input_ids: Sequence[TokenIds], labels: Sequence[TokenIds]) -> TokenBatch:
    """Pad examples on the right to one length. Padding gets token 0: it is masked and comes after every real token."""
    width = max(len(ids) for ids in input_ids)

    def padded(rows: Sequence[TokenIds], fill: int) -> torch.Tensor:
        batch = torch.full((len(rows), width), fill)
        for into, row in zip(batch, rows, strict=True):
            into[: len(row)] = torch.as_tensor(row)
        return batch

    mask = torch.arange(width) < torch.tensor([len(ids) for ids in input_ids]).unsqueeze(1)
    return TokenBatch(padded(input_ids, 0), mask, padded(labels, IGNORED_LABEL), is_padded_right=True)
