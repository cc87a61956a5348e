"""How far the scores of a fixed probe set moved: whether earlier scores can be ranked together with new ones."""

import torch
from jaxtyping import Float
from torch import Tensor


def scale_and_change(
    earlier_scores: Float[Tensor, "Q p"], later_scores: Float[Tensor, "Q p"]
) -> tuple[Float[Tensor, " Q"], Float[Tensor, " Q"]]:
    """Return the factor a that brings each query's earlier scores x nearest to its later ones y, and the change left.

    Curvature grows with the data, so that all scores shrink together; that does not change what influenced what.
    a = <x, y> / <x, x>; the change is ||y - a x|| / ||y||. A query whose scores are all zero both times has a = 1 and no
    change.
    """
    x, y = earlier_scores.double(), later_scores.double()
    inner, square, norm = (x * y).sum(1), x.square().sum(1), y.norm(dim=1)
    scale = torch.where(square > 0, inner / square.clamp(min=torch.finfo(torch.float64).tiny), 1.0)
    left = (y - scale.unsqueeze(1) * x).norm(dim=1)
    change = torch.where(norm > 0, left / norm.clamp(min=torch.finfo(torch.float64).tiny), (square > 0).double())
    return scale, change
