"""Exact scores: the leading examples of each query ranked again by whole gradients."""

from functools import partial

import polars as pl

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.beside_scores import Computed, beside_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.attribution.checkpoints.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.exact.rank_again import ExactPlan
from lorif_assets.attribution.fitting.whole_gradients import WholeGradients
from lorif_assets.attribution.pairs.listed_examples import listed_examples
from lorif_assets.attribution.scores.score_modes import ReadQuerySet
from lorif_assets.attribution.scores.stored_rankings import leading_rows, stored_ranking
from lorif_assets.freshness.attribution import stale_exact_scores
from lorif_assets.lake.attribution_tables import EXACT_SCORES


@attribution_asset(
    group="attribution",
    table=EXACT_SCORES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[Input(query_scores)],
    find_stale=stale_exact_scores,
    is_used=lambda settings: settings.exact_scores.enabled,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def exact_scores(run: PartitionRun) -> Materializations:
    """The leading examples of each query ranked again by whole gradients: neither projected nor compressed.

    Off by default (`exact_scores.enabled`). The log says before it begins which passes it takes, and about how long.
    """
    settings = run.settings.exact_scores
    for name, query_sets in run.by_checkpoint().items():
        stored = run.stored(name)
        _ = stored.preconditioners
        with run.lease() as group, run.tracked(name, query_sets.values(), settings.model_dump()):
            checkpoint = stored.load(run.checkpoints, group)
            whole = WholeGradients.of(checkpoint, settings)
            compute = partial(_exact_scores, run, checkpoint, whole)
            yield from beside_scores(run, EXACT_SCORES, name, query_sets, settings.version, compute)
            # Before another run gets the devices: the memory is not free while a name refers to the model.
            del checkpoint, whole, compute


def _exact_scores(
    run: PartitionRun, checkpoint: AttributedCheckpoint, whole: WholeGradients, query_set: str
) -> Computed:
    plan = _plan(run, checkpoint, whole, query_set)
    seconds, label = plan.estimated_seconds(), f"{checkpoint.stored.record.name} {query_set}"
    run.log.info(f"{label}: {plan}; about {seconds:,.0f} s")
    with run.progress(label, plan.tokens, "tok") as progress:
        frame = plan.rows(progress)
    estimate = {"what_it_took": str(plan), "seconds_estimated": round(seconds, 1)}
    solver = run.settings.exact_scores.query_solver
    return frame.with_columns(query_solver=pl.lit(solver)), {**_figures(frame), **estimate}


def _plan(run: PartitionRun, checkpoint: AttributedCheckpoint, whole: WholeGradients, query_set: str) -> ExactPlan:
    settings = run.settings
    listed = leading_rows(
        stored_ranking(run.lake, checkpoint.stored.record.name, query_set, "plain"), settings.exact_scores.first
    )
    queries = ReadQuerySet.of(checkpoint, query_set).tokenized.examples
    examples = listed_examples(run.lake, checkpoint.model, listed.select("shard", "example_id").iter_rows())
    return ExactPlan.of(whole, queries, listed, examples, settings.exact_scores, settings.batch)


def _figures(rows: pl.DataFrame) -> dict[str, float]:
    correlation = rows.group_by("query_id", "side").agg(pl.corr("rank", "stored_rank", method="spearman"))
    found = correlation["rank"].drop_nulls().drop_nans()
    return {
        "rank_correlation_with_stored": float(found.mean() or 0.0) if len(found) else 0.0,  # type: ignore[arg-type]
    }
