"""How far the scores of a fixed probe set moved: whether earlier scores may stand beside new ones."""

import torch
from jaxtyping import Float
from torch import Tensor


def scale_and_change(
    before: Float[Tensor, "Q p"], after: Float[Tensor, "Q p"]
) -> tuple[Float[Tensor, " Q"], Float[Tensor, " Q"]]:
    """Return each query's factor a that brings its earlier scores nearest to the later ones, and what is left.

    Curvature grows with the data, so that all scores shrink together; that is no change of what influenced what.
    a = <before, after> / <before, before>; the change is ||after - a before|| / ||after||. A query whose scores are all
    zero both times has a = 1 and no change.
    """
    x, y = before.double(), after.double()
    inner, square, norm = (x * y).sum(1), x.square().sum(1), y.norm(dim=1)
    scale = torch.where(square > 0, inner / square.clamp(min=torch.finfo(torch.float64).tiny), 1.0)
    left = (y - scale.unsqueeze(1) * x).norm(dim=1)
    change = torch.where(norm > 0, left / norm.clamp(min=torch.finfo(torch.float64).tiny), (square > 0).double())
    return scale, change
