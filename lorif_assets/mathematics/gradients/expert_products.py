"""Operations on rows that are sorted by expert: taken from their tokens, multiplied expert by expert, and summed by token.

Weights are frozen, and rows many: what autograd would keep or make on the way is more than what is asked for, so that each
operation has derivatives of its own, backwards and forwards.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lorif_assets.mathematics.matrix_products import put_product


def token_rows(hidden: Float[Tensor, "N H"], order: Int[Tensor, " S"]) -> Float[Tensor, "S H"]:
    """Return a row for each of the k experts that a token is routed to, in the order that sorts these N * k by expert."""
    rows: Tensor = _TokenRows.apply(hidden, order)
    return rows


def weighted_sums(
    rows: Float[Tensor, "S O"], order: Int[Tensor, " S"], weights: Float[Tensor, "N k"]
) -> Float[Tensor, "N O"]:
    """Return the weighted sums over a token's experts of rows that are sorted by expert."""
    dtype = torch.promote_types(rows.dtype, weights.dtype)
    sums: Tensor = _WeightedSums.apply(rows.to(dtype), order, weights.to(dtype))
    return sums


def grouped_product(
    x: Float[Tensor, "S I"],
    matrices: Float[Tensor, "E I O"],
    sizes: tuple[int, ...],
    biases: Float[Tensor, "E O"] | None = None,
) -> Float[Tensor, "S O"]:
    """Return the product of each expert's rows with its own, frozen matrix, and its bias added."""
    products: Tensor = _GroupedLinear.apply(x, matrices, sizes, biases)
    return products


class _TokenRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        ctx.save_for_forward(order)
        ctx.n_tokens = len(hidden)
        return _taken(hidden, order)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (order,) = ctx.saved_tensors
        return _taken(tangents[0], order)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (order,) = ctx.saved_tensors
        return _sums(gradients[0], order, ctx.n_tokens, None), None


class _WeightedSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, order, weights)
        ctx.save_for_forward(rows, order, weights)
        return _sums(rows, order, len(weights), weights)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        rows, order, weights = ctx.saved_tensors
        of_rows, _, of_weights = tangents
        found = torch.zeros(len(weights), rows.shape[1], dtype=rows.dtype, device=rows.device)
        if of_rows is not None:
            found += _sums(of_rows, order, len(weights), weights)
        if of_weights is not None:
            found += _sums(rows, order, len(weights), of_weights)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor]:
        rows, order, weights = ctx.saved_tensors
        of_tokens = _taken(gradients[0], order)
        of_weights = torch.empty_like(weights).view(-1).index_copy_(0, order, (of_tokens * rows).sum(dim=1))
        return of_tokens.mul_(weights.flatten()[order].unsqueeze(1)), None, of_weights.view_as(weights)


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, matrices: Tensor, sizes: tuple[int, ...], biases: Tensor | None) -> Tensor:
        ctx.save_for_backward(matrices)
        ctx.save_for_forward(matrices)
        ctx.sizes = sizes
        return _by_expert(x, matrices, sizes, biases)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (matrices,) = ctx.saved_tensors
        return _by_expert(tangents[0], matrices, ctx.sizes, None)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (matrices,) = ctx.saved_tensors
        return _by_expert(gradients[0], matrices.mT, ctx.sizes, None), None, None, None


def _by_expert(x: Tensor, matrices: Tensor, sizes: tuple[int, ...], biases: Tensor | None) -> Tensor:
    found = x.new_empty(len(x), matrices.shape[2])
    parts = zip(x.split(sizes), matrices.unbind(), found.split(sizes), strict=True)
    for expert, (part, matrix, place) in enumerate(parts):
        if sizes[expert]:
            put_product(place, part, matrix, None if biases is None else biases[expert])
    return found


def _taken(hidden: Tensor, order: Tensor) -> Tensor:
    return hidden.index_select(0, order // (len(order) // len(hidden)))


def _sums(rows: Tensor, order: Tensor, n_tokens: int, weights: Tensor | None) -> Tensor:
    """Return the sums over the rows of each token."""
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    # The rows are added where they lie, without a copy of them in the tokens' order.
    return functional.embedding_bag(places.view(n_tokens, -1), rows, mode="sum", per_sample_weights=weights)
