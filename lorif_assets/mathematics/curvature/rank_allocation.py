"""How many components each layer keeps for a budget of bytes per example (docs/method.md: rank by layer)."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases


@dataclass(frozen=True)
class LayerDemand:
    """What a layer's components are worth and cost.

    `query_energy` is the mean ||M_q||_F^2 of preconditioned queries; `squared_singular_values` has the means over examples
    of the k-th squared singular value of the whitened gradient, largest first, one for each component that may be kept.
    """

    query_energy: float
    squared_singular_values: Sequence[float]
    component_bytes: int

    def worth(self, k: int) -> float:
        """Return the expected squared score error that component k (from 0) removes per byte."""
        return self.query_energy * self.squared_singular_values[k] / self.component_bytes


def allocate_ranks(layers: Mapping[str, LayerDemand], budget: int) -> dict[str, int]:
    """Return each layer's rank: one component each, then each further one to the layer where it is worth most.

    Args:
        layers: by name.
        budget: bytes of one example in all layers; what is too little for a further component is left over.

    Raises:
        ValueError: the budget does not pay for one component of every layer.
    """
    left = budget - sum(layer.component_bytes for layer in layers.values())
    if left < 0:
        raise ValueError(f"{budget} bytes per example are too few: one component of every layer takes {budget - left}")
    ranks = dict.fromkeys(layers, 1)
    # Ties go to the layer that comes first.
    heap = [
        (-layer.worth(1), order, name)
        for order, (name, layer) in enumerate(layers.items())
        if len(layer.squared_singular_values) > 1
    ]
    heapq.heapify(heap)
    while heap:
        _, order, name = heapq.heappop(heap)
        layer = layers[name]
        if layer.component_bytes > left:
            continue
        left -= layer.component_bytes
        ranks[name] += 1
        if ranks[name] < len(layer.squared_singular_values):
            heapq.heappush(heap, (-layer.worth(ranks[name]), order, name))
    return ranks


def query_energy(bases: KfacBases, fisher: FisherDiagonal, damping: float) -> float:
    """Return the mean ||M_q||_F^2 where the examples that `fisher` holds are the queries.

    The mean of R_q * R_q is then Lam itself: sum of Lam / ((Lam + m mean Lam) s)^2.
    """
    eigenvalues = fisher.eigenvalues
    mean = eigenvalues.mean()
    if not bool(mean > 0):
        return 0.0
    return float((eigenvalues / ((eigenvalues + damping * mean) * bases.scale.double()).square()).sum())


def kept_energy(bases: KfacBases, fisher: FisherDiagonal, energy: float) -> float:
    """Return the share, from 0 to 1, that `energy` is of the squared norms of all whitened gradients; 1 where they are 0.

    The sum of ||R_i * s||_F^2 over the examples that `fisher` holds is that of its squares * s * s.
    """
    total = float((fisher.squares * bases.scale.double().square()).sum())
    return min(energy / total, 1.0) if total > 0 else 1.0
