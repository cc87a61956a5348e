"""What the tables of the evaluation hold, as the page shows it."""

import polars as pl

from lorif_assets.config.recipe import Recipe
from lorif_assets.evaluation.figures import DIFFERENCE, MEAN, QUERY, reference_method
from lorif_assets.evaluation.removal_figures import DIFFERENCE_METRIC, PER_TOKEN_METRIC, SORTED_METRIC
from lorif_assets.mathematics.evaluation.intervals import Estimate, compared_over_queries
from lorif_assets.pages.evaluation.content import (
    GroundTruthFigures,
    Interval,
    Measured,
    RecipeTrial,
    Removal,
    RemovalMeasures,
    Selected,
)

_TRIAL_COLUMNS = (
    "curvature",
    "rank",
    "r",
    "damping",
    "curvature_form",
    "factor_dtype",
    "bytes_per_example",
    "n_examples",
    "agreement",
    "seconds",
)

_REMOVAL_METRICS = (DIFFERENCE_METRIC, PER_TOKEN_METRIC, SORTED_METRIC)


def measured(figures: pl.DataFrame, metric: str) -> Measured | None:
    """Return one metric of the rows of `evaluation_figures`, or None where no method has it."""
    rows = figures.filter(pl.col("metric") == metric, pl.col("method").is_not_null())
    by_statistic: dict[str, dict[str, Interval]] = {MEAN: {}, DIFFERENCE: {}}
    per_query: dict[str, list[float]] = {}
    for statistic, method, value, low, high in (
        rows.sort("query_id").select("statistic", "method", "value", "low", "high").iter_rows()
    ):
        if statistic == QUERY:
            per_query.setdefault(method, []).append(value)
        else:
            by_statistic[statistic][method] = Interval(value, low, high)
    return Measured(by_statistic[MEAN], by_statistic[DIFFERENCE], per_query) if by_statistic[MEAN] else None


def removal_rises(rows: pl.DataFrame) -> tuple[Removal, ...]:
    """Return by method and number of first examples removed how much the mean loss per token rose, for each seed.

    Each seed is compared with retraining on everything with that seed; where that is missing, with its mean over seeds.
    """
    per_token = pl.col("loss") / pl.col("n_target_tokens")
    means = (
        rows.filter(pl.col("n_target_tokens") > 0, pl.col("first_removed").fill_null(0) == 0)
        .group_by("method", "n_removed", "seed")
        .agg(loss=per_token.mean().cast(pl.Float64))
    )
    whole = means.filter(pl.col("method") == "none")
    if whole.is_empty():
        return ()
    untouched, default = dict(whole.select("seed", "loss").iter_rows()), float(whole["loss"].to_numpy().mean())
    rises: dict[tuple[str, int], list[float]] = {}
    chosen = means.filter(pl.col("method") != "none").sort("method", "n_removed", "seed")
    for method, n_removed, seed, loss in chosen.select("method", "n_removed", "seed", "loss").iter_rows():
        rises.setdefault((method, n_removed), []).append(loss - untouched.get(seed, default))
    return tuple(Removal(method, n_removed, tuple(found)) for (method, n_removed), found in rises.items())


def removal_measures(figures: pl.DataFrame) -> RemovalMeasures | None:
    """Return what was measured on the losses after removals, or None where nothing was."""
    metrics = {name: found for name in _REMOVAL_METRICS if (found := measured(figures, name))}
    share = figures.filter(pl.col("metric") == "removed_share")["value"]
    return RemovalMeasures(metrics, float(share[0]) if len(share) else None) if metrics else None


def selected(rows: pl.DataFrame, draws: int) -> tuple[Selected, ...]:
    """Return by number of selected examples what the rows of `selection_losses` say, with 95 % intervals over queries.

    Args:
        rows: of one checkpoint and query set.
        draws: of the bootstrap.
    """
    per_token = pl.col("loss") / pl.col("n_target_tokens")
    means = (
        rows.filter(pl.col("n_target_tokens") > 0)
        .group_by("n_selected", "method", "query_id")
        .agg(loss=per_token.mean().cast(pl.Float64), n_seeds=pl.col("seed").n_unique())
        .sort("n_selected", "query_id")
    )
    found = []
    for (n_selected,), of_number in means.group_by("n_selected", maintain_order=True):
        per_query = {str(name): of_method["loss"].to_numpy() for (name,), of_method in of_number.group_by("method")}
        result = compared_over_queries(per_query, reference_method(sorted(per_query)), draws)
        best = sorted(per_query, key=lambda method: result.mean[method].value)
        # The difference is the reference's loss minus the other's.
        lower_by = {name: Estimate(-one.value, -one.high, -one.low) for name, one in result.differences.items()}
        losses = {name: result.mean[name] for name in best}
        found.append(Selected(int(str(n_selected)), int(str(of_number["n_seeds"].min())), losses, lower_by))
    return tuple(found)


def recipe_trials(rows: pl.DataFrame) -> tuple[RecipeTrial, ...]:
    """Return the rows of `recipe_trials`, the smallest recipe first."""
    return tuple(
        RecipeTrial(
            **{name: row[name] for name in _TRIAL_COLUMNS},
            projection=Recipe.model_validate_json(row["recipe"]).projection,
            lds=None if row["lds"] is None else Interval(row["lds"], row["lds_low"], row["lds_high"]),
        )
        for row in rows.sort("bytes_per_example", "r", "damping").iter_rows(named=True)
    )


def ground_truth_figures(figures: pl.DataFrame) -> GroundTruthFigures | None:
    """Return what the rows of the linear datamodeling score say of the ground truth itself."""
    found = dict(figures.filter(pl.col("method").is_null()).select("metric", "value").iter_rows())
    if "subsets" not in found:
        return None
    return GroundTruthFigures(
        subsets=int(found["subsets"]),
        models=int(found["models"]),
        one_seed=found.get("reliability_of_one_seed"),
        all_seeds=found.get("reliability"),
        reachable_lds=found.get("lds_within_reach"),
    )
