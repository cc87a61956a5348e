"""What the losses after removals say of each method: how much queries lose, and in which order of its ranking."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from jaxtyping import Float64

from lorif_assets.config.settings import Settings
from lorif_assets.evaluation.figures import MEAN, Figure, comparison_figures, reference_method
from lorif_assets.evaluation.methods.evaluated_scores import EvaluatedScores
from lorif_assets.evaluation.retraining.ranked_data import (
    NOTHING,
    RankedData,
    count_of,
    removal_seeds,
    set_proponents,
    sorted_runs,
)
from lorif_assets.lake.evaluation_tables import REMOVAL_LOSSES
from lorif_assets.lake.lake import Lake
from lorif_assets.mathematics.evaluation.intervals import compared_over_queries

DIFFERENCE_METRIC, PER_TOKEN_METRIC, SORTED_METRIC = (
    "query_loss_difference",
    "query_loss_difference_per_token",
    "sorted_lds",
)


def removal_figures(
    settings: Settings, lake: Lake, checkpoint: str, query_set: str, scores: EvaluatedScores, n_examples: int
) -> list[Figure]:
    """Return the figures of every method that chose what was removed; all planned removals have to be stored.

    The query loss difference is that of the smallest share, nats; the LDS on sorted subsets is of a method's scores on the
    runs of its own ranking, there where such runs were left out. Queries without target tokens are left out.

    Args:
        settings: what was planned.
        lake: the tables.
        checkpoint: whose scores chose what was removed.
        query_set: the queries.
        scores: those scores.
        n_examples: that removals were planned for: all training examples, also those that have no scores.
    """
    from lorif_assets.mathematics.evaluation.removal_effect import (
        query_loss_differences,
        sorted_datamodeling_scores,
        sorted_subset_members,
    )

    rows = lake.read(REMOVAL_LOSSES, checkpoint=checkpoint, query_set=query_set).filter(pl.col("n_target_tokens") > 0)
    query_ids = sorted(set(rows["query_id"].to_list()) & set(scores.query_ids))
    if not query_ids:
        return []
    losses = _Losses(rows, query_ids)
    evaluation = settings.evaluation
    seeds = removal_seeds(evaluation)
    share, runs = min(evaluation.removal_shares, default=None), sorted_runs(evaluation, n_examples)
    whole = losses.of([RankedData(NOTHING, 0, seed) for seed in seeds])
    rises, in_order = {}, {}
    for method in map(str, evaluation.removal_methods):
        if share is not None:
            removals = [RankedData(method, count_of(share, n_examples), seed) for seed in seeds]
            rises[method] = query_loss_differences(losses.of(removals), whole)
        if runs:
            by_run = [
                losses.of([RankedData(method, end - first, seed, first) for seed in seeds]).mean(axis=0)
                for first, end in runs
            ]
            matrix = scores.by_method[method]
            members = sorted_subset_members(set_proponents(matrix), runs)
            chosen = matrix[[scores.query_ids.index(query_id) for query_id in query_ids]]
            in_order[method] = sorted_datamodeling_scores(chosen, members, np.stack(by_run, axis=1))
    per_token = {method: values / losses.n_tokens for method, values in rises.items()}
    figures = [] if share is None else [Figure("removed_share", MEAN, None, share)]
    for metric, values in ((DIFFERENCE_METRIC, rises), (PER_TOKEN_METRIC, per_token), (SORTED_METRIC, in_order)):
        if values:
            found = compared_over_queries(values, reference_method(values), evaluation.bootstrap)
            figures += comparison_figures(metric, found, query_ids)
    return figures


class _Losses:
    """The losses of some queries after removals."""

    def __init__(self, rows: pl.DataFrame, query_ids: Sequence[str]) -> None:
        """Take the rows of `removal_losses`, and the queries in the order that is wanted."""
        self._by_name: Mapping[str, Mapping[str, float]] = {
            str(name): dict(group.select("query_id", "loss").iter_rows()) for (name,), group in rows.group_by("removal")
        }
        self._query_ids = query_ids
        tokens = dict(rows.select("query_id", "n_target_tokens").iter_rows())
        self.n_tokens = np.array([tokens[query_id] for query_id in query_ids], dtype=np.float64)

    def of(self, removals: Sequence[RankedData]) -> Float64[np.ndarray, "S Q"]:
        """Return the losses after each removal."""
        return np.array([[self._by_name[one.name][query_id] for query_id in self._query_ids] for one in removals])
