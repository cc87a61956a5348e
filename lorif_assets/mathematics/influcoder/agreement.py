"""How well predicted influences agree with true ones: rank correlations, and the recall of a first stage."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from lorif_assets.mathematics.scores.ndcg import ndcg
from lorif_assets.mathematics.scores.rank_correlation import rank_correlations

_READ = 20


@dataclass(frozen=True)
class Agreement:
    """Spearman correlations between predicted and true influences, from -1 to 1, and what their first places hold."""

    per_anchor: float
    """Mean over anchors of the correlation along the pool."""
    aggregated: float
    """Correlation of the pool texts' mean over anchors."""
    ndcg_at_20: float
    """Mean over anchors of NDCG@20 along the pool, from 0 to 1: the head of a list is what people read."""


def agreement(predictions: Float[Tensor, "a p"], truth: Float[Tensor, "a p"]) -> Agreement:
    """Compare two matrices of influences of p pool texts on a anchors. A constant row agrees with nothing: 0."""
    rows = rank_correlations(predictions.double().numpy(), truth.double().numpy())
    columns = rank_correlations(predictions.double().mean(0, True).numpy(), truth.double().mean(0, True).numpy())
    return Agreement(float(rows.mean()), float(columns[0]), float(ndcg(predictions, truth, _READ).mean()))


def rank_transformed(scores: Float[Tensor, "a p"]) -> Float[Tensor, "a p"]:
    """Return each row's scores as ranks from 0 (lowest) to 1: unbounded scores become comparable between anchors."""
    ranks = rankdata(scores.double().numpy(), axis=1)
    return torch.from_numpy((ranks - 1.0) / max(scores.shape[1] - 1, 1)).float()


def recall_at(
    proposal_scores: Float[Tensor, "q n"], exact_scores: Float[Tensor, "q n"], k: int, candidates: Sequence[int]
) -> list[float]:
    """Return, for each number of candidates, the share of the exact top-k that is among that many highest proposals.

    Args:
        proposal_scores: the recall stage's scores of all n examples.
        exact_scores: the exact scores.
        k: how many leading examples should be found.
        candidates: how many the recall stage proposes.
    """
    n = exact_scores.shape[1]
    leading = exact_scores.topk(min(k, n), dim=1).indices
    order = proposal_scores.argsort(dim=1, descending=True, stable=True)
    place = torch.empty_like(order).scatter_(1, order, torch.arange(n).expand_as(order))
    return [float((place.gather(1, leading) < count).double().mean()) for count in candidates]
