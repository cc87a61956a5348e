"""Data of the pictures that no table of figures holds: scores against losses, and against known sources."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Bool

from lorif_assets.data.passages import asked_and_said
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores
from lorif_assets.evaluation.retraining.ground_truth import GroundTruth
from lorif_assets.mathematics.evaluation.datamodeling import subset_sums
from lorif_assets.mathematics.evaluation.roc import mean_roc_curve
from lorif_assets.mathematics.scores.rank_correlation import rank_correlations
from lorif_assets.pages.evaluation.content import Measured, QueryScatter, Retrieval
from lorif_assets.pages.evaluation.measurements import measured


def scatters(
    lds: Measured, scored: EvaluatedScores, truth: GroundTruth, queries: pl.DataFrame
) -> tuple[QueryScatter, ...]:
    """Return the best, median and worst query of the reference, under it and then under the best other method."""
    reference, *others = _reference_first(lds, scored)
    actual = truth.losses.mean(axis=1, keepdims=True) - truth.losses
    texts = {row["query_id"]: row for row in queries.iter_rows(named=True)}
    found: list[QueryScatter] = []
    places: dict[str, int] = {}
    for method in [reference, *others[:1]]:
        predicted = subset_sums(scored.by_method[method], truth.members)
        correlations = rank_correlations(predicted, actual)
        places = places or _places(correlations.tolist())
        for place, at in places.items():
            row = texts[scored.query_ids[at]]
            prompt, completion = asked_and_said(row)
            found.append(
                QueryScatter(
                    place=place,
                    query_id=row["query_id"],
                    prompt=prompt,
                    completion=completion,
                    method=method,
                    lds=float(correlations[at]),
                    predicted=tuple((predicted[at] - predicted[at].mean()).tolist()),
                    actual=tuple(actual[at].tolist()),
                )
            )
    return tuple(found)


def retrieval(
    figures: pl.DataFrame, scored: EvaluatedScores | None, sources: Mapping[str, Bool[np.ndarray, " N"]]
) -> Retrieval | None:
    """Return the stored metrics, and the ROC curves of the queries whose sources are among the scored examples.

    Args:
        figures: what `source_retrieval` measured.
        scored: scores of all methods.
        sources: by query, which of the scored examples are its known sources.
    """
    names = figures.filter(pl.col("method").is_not_null())["metric"].unique(maintain_order=True).to_list()
    metrics = {name: found for name in names if (found := measured(figures, name))}
    curves: dict[str, tuple[float, ...]] = {}
    if scored:
        nothing = np.zeros(len(scored.example_ids), dtype=np.bool_)
        relevant = np.stack([sources.get(query, nothing) for query in scored.query_ids])
        curves = {
            method: tuple(curve.tolist())
            for method, scores in scored.by_method.items()
            if (curve := mean_roc_curve(scores, relevant)) is not None
        }
    if not metrics and not curves:
        return None
    return Retrieval(metrics, curves, len(sources), len(scored.example_ids) if scored else 0)


def _reference_first(lds: Measured, scored: EvaluatedScores) -> Sequence[str]:
    ranked = [method for method in lds.methods if method in scored.by_method]
    return sorted(ranked, key=lambda method: method != lds.reference)


def _places(correlations: Sequence[float]) -> dict[str, int]:
    """Return the positions of the best, the median and the worst of the queries; of fewer than three, of those."""
    order = sorted(range(len(correlations)), key=lambda at: -correlations[at])
    names = {order[len(order) // 2]: "median", order[-1]: "worst", order[0]: "best"}
    return {names[at]: at for at in order if at in names}
