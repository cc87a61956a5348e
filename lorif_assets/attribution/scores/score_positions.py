"""Scores of single examples at chosen or random positions, without a scan of all."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lorif_assets.attribution.queries.precondition_queries import PreconditionedQueries
from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.lake.factor_row_groups import row_group_starts

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.scores.relative_influence import ScoredBlock


def random_positions(factors: StoredFactors, seed: int, count: int) -> list[int]:
    """Return the positions of random whole row groups that together have `count` examples, fewer if there are fewer."""
    groups, first = [], 0
    for file in factors.files:
        starts = row_group_starts(factors.lake, file)
        groups += [range(first + start, first + end) for start, end in pairwise(starts)]
        first += file.rows
    chosen: list[int] = []
    for index in np.random.default_rng(seed).permutation(len(groups)):
        if len(chosen) >= count:
            break
        chosen += groups[index]
    return sorted(chosen)


def scores_at(
    factors: StoredFactors, queries: PreconditionedQueries, positions: Sequence[int], device: "torch.device"
) -> "tuple[ScoredBlock, int]":
    """Return the scores of the examples at ascending positions, and the number of bytes read."""
    import torch

    from lorif_assets.mathematics.scores.relative_influence import ScoredBlock

    selection = factors.rows(list(queries.by_layer), positions, device)
    scored = [ScoredBlock.of(queries.by_layer, block, queries.norm_weights) for block in selection.blocks]
    joined = ScoredBlock(
        torch.cat([block.scores.cpu() for block in scored], dim=1), torch.cat([block.squares.cpu() for block in scored])
    )
    return joined, selection.bytes_read
