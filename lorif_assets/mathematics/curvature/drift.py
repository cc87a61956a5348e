"""Whether a layer's eigenvectors still describe its data: the energy of gradients that were added later."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.matrix_products import product


@dataclass(frozen=True)
class BasisDrift:
    """How much of the gradients added since a basis was fitted lies in the eigenvectors of that time.

    `fitted_share` is the share of the trace that the eigenvectors captured of the data the basis was fitted to;
    `energy` is the sum of ||g||^2 over what was added since, and `captured` that of ||V^T g||^2, with the eigenvectors V
    of that time.
    """

    fitted_share: float
    energy: float = 0.0
    captured: float = 0.0

    def add(self, vectors: Float[Tensor, "D r"], factors: GradientFactors) -> "BasisDrift":
        """Return the drift with more gradients, measured in the eigenvectors V [D, r] that do not hold them yet."""
        captured = sum(
            float(product(block.to(vectors), vectors).square().sum(dtype=torch.float64))
            for block in factors.dense_blocks()
        )
        energy = float(factors.squared_norms().sum())
        return BasisDrift(self.fitted_share, self.energy + energy, self.captured + captured)

    @property
    def added_share(self) -> float | None:
        """Share of the added energy that was captured, from 0 to 1; None if nothing was added."""
        return min(self.captured / self.energy, 1.0) if self.energy > 0 else None

    def is_below(self, ratio: float) -> bool:
        """Whether the added gradients are captured less than `ratio` times as well as those the basis was fitted to."""
        return self.added_share is not None and self.added_share < ratio * self.fitted_share
