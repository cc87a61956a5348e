"""What retrained models say of single examples: the effect of an example's presence on a query's loss."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def subset_effects(members: Bool[Tensor, "M p"], losses: Float[Tensor, "a M"]) -> Float[Tensor, "a p"]:
    """Return, FP64, a query's mean loss over the subsets that lack an example less that over those that have it.

    It is positive where training on the example lowers the loss (the subset estimate of Feldman and Zhang 2020, arXiv
    2008.03703). An example that every subset has, or none, has 0: nothing is known of it. The noise falls with the root of M.

    Args:
        members: which of p examples each of M subsets has.
        losses: of a queries under the model that was trained on each subset.
    """
    has, values = members.double(), losses.double()
    with_it = has.sum(0)
    without_it = len(has) - with_it
    means = values @ (1 - has) / without_it.clamp(min=1) - values @ has / with_it.clamp(min=1)
    return torch.where((with_it > 0) & (without_it > 0), means, 0.0)
