"""Normalised discounted cumulative gain: how much of the best possible list a ranking's first places hold."""

import torch
from jaxtyping import Float
from torch import Tensor


def ndcg(predictions: Float[Tensor, "q n"], truth: Float[Tensor, "q n"], k: int) -> Float[Tensor, " q"]:
    """Return each row's NDCG@k from 0 to 1, FP64: DCG of the predicted order over that of the true one.

    DCG = Σ gain(rank) / log2(1 + rank) over the first k ranks (Järvelin and Kekäläinen 2002). The gain of an example is its
    true score where that is positive, else 0: opponents in a list of proponents are worth nothing. Where predictions are
    equal, each of their places has their mean gain. A row without any gain has 0.

    Args:
        predictions: scores that rank the n examples.
        truth: true scores.
        k: places that count; fewer where there are fewer examples.
    """
    gains = truth.double().clamp(min=0)
    k = min(k, truth.shape[1])
    discounts = 1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))
    order = predictions.double().argsort(dim=1, descending=True, stable=True)
    ranked, sorted_gains = predictions.double().gather(1, order), gains.gather(1, order)
    achieved = torch.stack([_mean_of_ties(*row)[:k] @ discounts for row in zip(ranked, sorted_gains, strict=True)])
    best = gains.topk(k, dim=1).values @ discounts
    return torch.where(best > 0, achieved / best.clamp(min=torch.finfo(torch.float64).tiny), 0.0)


def _mean_of_ties(ranked: Float[Tensor, " n"], gains: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    _, group, sizes = torch.unique_consecutive(ranked, return_inverse=True, return_counts=True)
    sums = torch.zeros(len(sizes), dtype=gains.dtype).index_add_(0, group, gains)
    means: Float[Tensor, " n"] = (sums / sizes)[group]
    return means
