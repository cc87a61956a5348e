"""EOGP (arXiv 2609.37842): examples as one bit for each axis of a layer, in which EK-FAC's scores are plain dot products.

A gradient G is half-whitened by EK-FAC, z = vec(R / sqrt(Lam + m mean Lam)), so that z_q . z_i is EK-FAC's score. Of z, its
coordinates along k axes of each layer are kept: the leading axes of a PCA, or random ones (EOGP-R). An example keeps their
signs and one FP16 scale for each layer; a query keeps them as they are. The PCA is not centred: a score is a dot product,
not a covariance.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from lorif_assets.mathematics.curvature.ekfac import KroneckerPreconditioner
from lorif_assets.mathematics.gradients.projection import random_signs

SCALE_BYTES = 2
_BITS = 8
_DRAWN_AT_ONCE = 256
_SMALLEST_SHARE = 1e-6
"""Of the largest eigenvalue: axes below it are rounding."""


def half_whitened(preconditioner: KroneckerPreconditioner, gradients: Float[Tensor, "n d1 d2"]) -> Float[Tensor, "n D"]:
    """Return z of n gradients, in their type; zeros where no training example has a gradient in the layer."""
    mean = preconditioner.eigenvalues.mean()
    if not bool(mean > 0):
        return torch.zeros_like(gradients).flatten(1)
    weights = (preconditioner.eigenvalues + preconditioner.damping * mean).rsqrt().to(gradients)
    return (preconditioner.bases.rotate(gradients).to(weights) * weights).flatten(1)


def energy(preconditioner: KroneckerPreconditioner) -> float:
    """Return the mean ||z||^2 of the examples that the eigenvalues are of: the sum of Lam / (Lam + m mean Lam)."""
    values = preconditioner.eigenvalues.double()
    mean = values.mean()
    return float((values / (values + preconditioner.damping * mean)).sum()) if bool(mean > 0) else 0.0


def axes_by_layer(energies: Mapping[str, float], most: Mapping[str, int], budget: int) -> dict[str, int]:
    """Return how many axes each layer keeps, eight to a byte, in proportion to its energy.

    Args:
        energies: by layer.
        most: axes that a layer has at most; what it cannot take, others get.
        budget: bytes of one example in all layers, its scales among them.

    Raises:
        ValueError: the budget does not pay for one byte of axes in every layer.
    """
    left = budget - len(energies) * (SCALE_BYTES + 1)
    if left < 0:
        raise ValueError(
            f"{budget} bytes per example are too few: a scale and eight axes of every layer take {budget - left}"
        )
    room = {layer: most[layer] // _BITS for layer in energies}
    taken = {layer: min(1, room[layer]) for layer in energies}
    while left:
        open_layers = [layer for layer in energies if taken[layer] < room[layer]]
        if not open_layers:
            break
        # The byte goes to the layer that is farthest behind its share.
        behind = min(open_layers, key=lambda layer: (taken[layer] + 1) / max(energies[layer], 1e-30))
        taken[behind] += 1
        left -= 1
    return {layer: _BITS * count or most[layer] for layer, count in taken.items()}


def code_bytes(axes: Mapping[str, int]) -> int:
    """Return the bytes of one example's codes: a bit for each axis, and a scale for each layer."""
    return sum(-(-count // _BITS) + SCALE_BYTES for count in axes.values())


@dataclass(frozen=True)
class PrincipalAxes:
    """The leading axes of half-whitened gradients P, as weights of these rows: the axes are the columns of P^T weights.

    Only dot products with the rows are ever needed. Each axis is of unit length, the leading one first.
    """

    weights: Float[Tensor, "m k"]

    @classmethod
    def fit(cls, gram: Float[Tensor, "m m"], count: int) -> "PrincipalAxes":
        """Fit at most `count` axes, at most as many as the rows span, to the rows' dot products P P^T."""
        values, vectors = torch.linalg.eigh(gram.double())
        values, vectors = values.flip(0), vectors.flip(1)
        kept = int((values > _SMALLEST_SHARE * values[0]).sum()) if bool(values[0] > 0) else 0
        kept = min(kept, count)
        return cls((vectors[:, :kept] / values[:kept].sqrt()).to(gram))

    def coordinates(self, products: Float[Tensor, "n m"]) -> Float[Tensor, "n k"]:
        """Return the coordinates along the axes of other rows Z, by their dot products Z P^T."""
        return products @ self.weights


def random_coordinates(z: Float[Tensor, "n D"], count: int, layer: str, seed: int) -> Float[Tensor, "n k"]:
    """Return coordinates along random axes of signs, scaled so that dot products keep their expectation.

    The axes follow from the seed and the layer's name, so that nothing of them is stored.
    """
    parts = []
    for first in range(0, count, _DRAWN_AT_ONCE):
        width = min(_DRAWN_AT_ONCE, count - first)
        axes = random_signs(seed, layer, f"axes {first}", z.shape[1], width).to(z)
        parts.append(z @ axes * (width / count) ** 0.5)
    return torch.cat(parts, dim=1)


def one_bit(coordinates: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Return what is left of coordinates that are kept as signs and one FP16 scale for each row: the mean absolute value."""
    if not coordinates.shape[1]:
        return coordinates
    scales = coordinates.abs().mean(1, keepdim=True).half().to(coordinates)
    return torch.where(coordinates < 0, -scales, scales)


def code_scores(queries: Float[Tensor, "Q k"], examples: Float[Tensor, "n k"]) -> Float[Tensor, "Q n"]:
    """Return the scores that one layer's coordinates give, once those of the examples are kept in one bit each."""
    return queries @ one_bit(examples).mT


def halves(n: int, seed: int) -> tuple[Int64[Tensor, " a"], Int64[Tensor, " b"]]:
    """Return n positions in two random halves: a cross-fit codes each of them along the axes of the other."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return order[: n // 2].sort().values, order[n // 2 :].sort().values
