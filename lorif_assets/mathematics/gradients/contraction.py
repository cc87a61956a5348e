"""The order in which a layer's gradient G = (X P_in)^T (dY P_out) is multiplied out: the one with the fewest products.

Projecting token by token costs T O d2 products on the output's side. Where the input is narrow, (X P_in)^T dY first and
P_out afterwards costs T d1 O + d1 O d2: in GPT-2's layers half of all, at 512 tokens and a projection factor of 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.gradients.projection import LayerProjection, projected
from lorif_assets.mathematics.matrix_products import product


@dataclass(frozen=True)
class Contraction:
    """Which sides are projected token by token; the other side, if any, is projected after the sum over the tokens."""

    inputs: bool
    outputs: bool


BY_TOKEN = Contraction(inputs=True, outputs=True)
# At 15 times the rate of FP32, one BF16 product with a BF16 model's tokens, three with FP32 sums over them.
_SIGN_COST_OF_TOKENS = 1 / 15
_SIGN_COST_OF_SUMS = 3 / 15
_ORDERS = (BY_TOKEN, Contraction(inputs=True, outputs=False), Contraction(inputs=False, outputs=True))


def multiplications(projection: LayerProjection, tokens: int, order: Contraction) -> float:
    """Return the multiplications of one example's gradient, those by bare signs as what they cost beside the others."""
    i, o, d1, d2 = projection.layer.d_in, projection.layer.d_out, projection.d1, projection.d2
    rows, columns = d1 if order.inputs else i, d2 if order.outputs else o
    before = (i * d1 if order.inputs else 0) + (o * d2 if order.outputs else 0)
    after = (0 if order.inputs else i * d1 * d2) + (0 if order.outputs else d1 * o * d2)
    if projection.p_in is not None and projection.p_in.dtype == torch.bfloat16:
        return tokens * (before * _SIGN_COST_OF_TOKENS + rows * columns) + after * _SIGN_COST_OF_SUMS
    return tokens * (before + rows * columns) + after


def cheapest_order(projection: LayerProjection, tokens: int) -> Contraction:
    """Return the order with the fewest multiplications for examples of this many tokens."""
    if projection.p_in is None or projection.p_out is None:
        return BY_TOKEN
    return min(_ORDERS, key=lambda order: multiplications(projection, tokens, order))


def contracted_gradients(
    calls: Sequence[tuple[Float[Tensor, "B T i"], Float[Tensor, "B T o"]]],
    rows: slice,
    projection: LayerProjection,
    order: Contraction,
    max_numbers: int,
) -> Float[Tensor, "b d1 d2"]:
    """Return the gradients of some examples of a batch, summed over a layer's calls.

    Args:
        calls: inputs and output gradients of each call; the sides that the order names are already projected.
        rows: the examples.
        projection: of the layer.
        order: which sides those are.
        max_numbers: numbers of sums over tokens that are held before a side is projected.
    """
    x, dy = calls[0]
    step = max(1, max_numbers // (x.shape[2] * dy.shape[2]))
    parts = []
    for start in range(rows.start, rows.stop, step):
        some = slice(start, min(start + step, rows.stop))
        total = _sums(calls, some)
        if not order.outputs and projection.p_out is not None:
            total = projected(total, projection.p_out)
        if not order.inputs and projection.p_in is not None:
            total = projected(total.mT, projection.p_in).mT
        parts.append(total)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _sums(calls: Sequence[tuple[Tensor, Tensor]], rows: slice) -> Tensor:
    """Return the sum over calls and tokens of x dy^T."""
    first, *others = (product(x[rows].to(dy.dtype).mT, dy[rows]) for x, dy in calls)
    for other in others:
        first += other
    return first
