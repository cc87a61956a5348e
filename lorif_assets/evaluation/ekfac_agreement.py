"""How well the first places of each method agree with those of exact EK-FAC, where that is compared too."""

from lorif_assets.config.methods import MethodName
from lorif_assets.evaluation.figures import Figure, comparison_figures, reference_method
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores
from lorif_assets.mathematics.evaluation.intervals import compared_over_queries

METRIC = "ndcg_at_20"
_PLACES = 20


def agreement_figures(scored: EvaluatedScores, draws: int) -> list[Figure]:
    """Return the NDCG@20 of every other method to exact EK-FAC, its positive scores being the gains; none without it.

    Args:
        scored: scores of all methods.
        draws: bootstrap draws of the intervals, over queries.
    """
    import torch

    from lorif_assets.mathematics.scores.ndcg import ndcg

    others = {method: scores for method, scores in scored.by_method.items() if method != MethodName.EKFAC}
    exact = scored.by_method.get(MethodName.EKFAC)
    if exact is None or not others:
        return []
    truth = torch.from_numpy(exact)
    found = {method: ndcg(torch.from_numpy(scores), truth, _PLACES).numpy() for method, scores in others.items()}
    return comparison_figures(METRIC, compared_over_queries(found, reference_method(found), draws), scored.query_ids)
