"""Conjugate gradients on vectors that are a matrix for each layer, with a preconditioner."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

Vector = Mapping[str, Float[Tensor, "d1 d2"]]
"""By layer."""

Operator = Callable[[Vector], Vector]


def conjugate_gradients(product: Operator, precondition: Operator, target: Vector, rounds: int) -> dict[str, Tensor]:
    """Return the solution of H s = g after a few rounds from zero, each of one product with H.

    The first round gives a multiple of the preconditioned g; those after it bring what the preconditioner lacks. A target of
    zeros has zeros as its solution.

    Args:
        product: H v, symmetric and positive definite.
        precondition: an approximation of H^-1 v, likewise.
        target: g.
        rounds: of the iteration.
    """
    solution = {layer: torch.zeros_like(g) for layer, g in target.items()}
    residual = dict(target)
    near = precondition(residual)
    direction, size = dict(near), inner(residual, near)
    for _ in range(rounds):
        if not size > 0.0:
            break
        image = product(direction)
        step = size / inner(direction, image)
        solution = {layer: s + step * direction[layer] for layer, s in solution.items()}
        residual = {layer: r - step * image[layer] for layer, r in residual.items()}
        near = precondition(residual)
        earlier, size = size, inner(residual, near)
        direction = {layer: z + size / earlier * direction[layer] for layer, z in near.items()}
    return solution


def inner(left: Vector, right: Vector) -> float:
    """Return the inner product of two vectors, in FP64."""
    return sum(float((a.double() * right[layer].double()).sum()) for layer, a in left.items())
