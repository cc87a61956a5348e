"""Query scores: which training examples made the model say each query's completion, and which spoke against it."""

import json
from functools import partial

import dagster as dg
import polars as pl

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.example_metadata import rejected_metadata
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.influence_embeddings import influence_embeddings
from lorif_assets.assets.partition_run import Failures, PartitionRun
from lorif_assets.assets.preconditioners import PRECONDITIONERS
from lorif_assets.assets.query_examples import query_examples
from lorif_assets.attribution.checkpoints.checkpoint import averaged_attributions
from lorif_assets.attribution.scores.score_checkpoint import CheckpointScoring, longest_query
from lorif_assets.attribution.scores.score_modes import ReadQuerySet
from lorif_assets.attribution.scores.score_queries import QueryScores
from lorif_assets.attribution.scores.score_rows import LOWEST
from lorif_assets.data.rows.rejected_share import RejectedShare
from lorif_assets.data.rows.rejection_reasons import first_and_counts
from lorif_assets.errors import LorifError, SourceError, UnsoundQueryError
from lorif_assets.freshness.attribution import stale_scores
from lorif_assets.freshness.view import Freshness
from lorif_assets.influcoder.cascade import recalled_scores
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES, RELATIVE_SCORES
from lorif_assets.pages import markdown
from lorif_assets.tracking.metric_names import metric_name

_SHOWN_QUERIES, _SHOWN_EXAMPLES = 10, 3
_COLUMNS = ("query", "rank", "example", "score")
_WEIGHTS = {"loss_per_token": "tokens", "top_10_share": "queries", "top_100_share": "queries"}


@attribution_asset(
    group="attribution",
    table=QUERY_SCORES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[
        Input(gradient_factors, partitions.whole_checkpoint()),
        *(Input(asset, partitions.whole_checkpoint()) for asset in PRECONDITIONERS),
        Input(query_examples, partitions.same(partitions.QUERY_SET)),
        # Where nothing is recalled, new embeddings would make scores look stale.
        Input(
            influence_embeddings,
            partitions.whole_checkpoint(),
            is_dependency=False,
            is_used=lambda settings: settings.recipe.recalls,
        ),
    ],
    find_stale=stale_scores,
    # Dagster is not told: where nothing is averaged, another checkpoint's factors would make scores look stale.
    companions=lambda freshness, key: _averaged_with(freshness, *key.split("|")),
    on_device=True,
    kinds={"torch", "deltalake"},
)
def query_scores(run: PartitionRun) -> Materializations:
    """Proponents and opponents of every query of a set at one checkpoint, best first; many sets take one scan.

    With `recipe.recall = "influcoder"` they are chosen by `influence_embeddings`, and with `recipe.averaged_checkpoints`
    scores are averaged with those of earlier checkpoints. Neither is a declared dependency: without these settings, new
    embeddings or another checkpoint's factors would make scores look stale.
    """
    settings, lake = run.settings, run.lake
    for name, query_sets in run.by_checkpoint().items():
        *earlier, stored = averaged_attributions(settings, run.checkpoints, run.stored(name))
        with (
            run.tracked(name, query_sets.values(), settings.recipe.model_dump()) as tracked,
            run.queried(stored) as checkpoint,
        ):
            max_length = checkpoint.with_model(longest_query)
            recall = partial(recalled_scores, settings)
            scoring = CheckpointScoring(run.log, settings, run.checkpoints, checkpoint, earlier, recall)
            # One bad query set must not keep the others from being scored.
            failures = Failures(run.log, "query sets", len(query_sets), "the other query sets")
            read_sets: dict[str, ReadQuerySet] = {}
            for query_set, key in query_sets.items():
                try:
                    read_sets[query_set] = _read(scoring, query_set, key)
                except LorifError as error:
                    failures.add(key, error)
            by_set: dict[str, dict[str, float]] = {}
            for query_set, scored in scoring.scores(read_sets):
                if isinstance(scored, UnsoundQueryError):
                    failures.add(query_sets[query_set], scored)
                    continue
                queries, figures = read_sets[query_set], _figures(scored.scores, read_sets[query_set])
                partition = {"checkpoint": name, "query_set": query_set}
                constants = {
                    **partition,
                    "recipe_hash": settings.recipe.score_hash,
                    "computed_from": scored.version,
                }
                # The summaries come last: readers take them as the sign that the scores are there.
                averaged = json.dumps(scoring.averaged_weights)
                for schema, frame in (
                    (QUERY_SCORES, scored.scores.scores),
                    (RELATIVE_SCORES, scored.scores.relative),
                    (QUERY_SUMMARIES, scored.scores.summaries.with_columns(averaged=pl.lit(averaged))),
                ):
                    lake.replace(schema, partition, frame.with_columns(**_literals(constants)).to_arrow())
                by_set[query_set] = figures
                if tracked:
                    tracked.checkpoint_metrics(_checkpoint_figures(query_set, figures, scored.scores.examples_scanned))
                yield from run.commit(
                    query_sets[query_set],
                    scored.version,
                    {
                        "dagster/row_count": scored.scores.scores.height,
                        **rejected_metadata(queries.tokenized.rejected, queries.tokenized.notices),
                        "truncated_queries": queries.tokenized.n_truncated,
                        "max_length": max_length,
                        "examples_scanned": scored.scores.examples_scanned,
                        "scan": scored.scores.scan,
                        **({"averaged_with": [one.record.name for one in earlier]} if earlier else {}),
                        **({"weights": scoring.averaged_weights} if earlier else {}),
                        **scored.metadata,
                        **figures,
                        "top_influences": dg.MetadataValue.md(
                            markdown.table(_COLUMNS, _top_influences(scored.scores.scores), numbers=("rank", "score"))
                        ),
                    },
                )
            if tracked:
                tracked.partitions(by_set, sums={"queries", "tokens"}, weights=_WEIGHTS)
            # Before another run gets the devices: the memory is not free while a name refers to the model.
            del checkpoint, scoring
            failures.raise_cause_or_all()


def _averaged_with(freshness: Freshness, checkpoint: str, query_set: str) -> list[str]:
    return [f"{name}|{query_set}" for name in freshness.averaging_groups.get(checkpoint, [checkpoint])]


def _read(scoring: CheckpointScoring, query_set: str, key: str) -> ReadQuerySet:
    """Read a query set; its queries that cannot be used are listed in the table `rejected`."""
    queries = scoring.read(query_set)
    rejected = queries.tokenized.rejected
    share = RejectedShare(
        scoring.checkpoint.stored.lake,
        "query_scores",
        f"the query set {query_set!r}",
        {key: queries.rows.height},
        scoring.settings.data.max_rejected_share,
    )
    share.replace(key, rejected)
    if not queries.tokenized.examples:
        reasons = first_and_counts(rejected["reason"].to_pylist())
        raise SourceError(f"no query of the set {query_set!r} can be used; {reasons}")
    share.refuse(key, rejected)
    return queries


def _literals(constants: dict[str, str]) -> dict[str, pl.Expr]:
    return {name: pl.lit(value) for name, value in constants.items()}


def _figures(scored: QueryScores, queries: ReadQuerySet) -> dict[str, float]:
    """Return the figures of a query set; a loss only of the queries that ask about one, and none without such."""
    summaries = scored.summaries
    of_loss = [query.example_id for query in queries.tokenized.examples if query.objective is None]
    losses = summaries.filter(pl.col("query_id").is_in(of_loss))
    tokens = int(losses["n_target_tokens"].sum())
    return {
        "queries": summaries.height,
        **({"tokens": tokens, "loss_per_token": float(losses["loss"].sum()) / tokens} if tokens else {}),
        "query_error": scored.query_error,
        "top_10_share": float(summaries["top_10_share"].to_numpy().mean()),
        "top_100_share": float(summaries["top_100_share"].to_numpy().mean()),
    }


def _checkpoint_figures(query_set: str, figures: dict[str, float], examples: int) -> dict[str, float]:
    """Return what the checkpoint's run says of a query set: its loss, and how concentrated its influence is."""
    return {
        "examples": examples,
        **{metric_name(name, query_set): figures[name] for name in _WEIGHTS if name in figures},
    }


def _top_influences(scores: pl.DataFrame) -> list[tuple[str, ...]]:
    best = scores.filter(pl.col("side") != LOWEST).filter(pl.col("rank") <= _SHOWN_EXAMPLES)
    queries = best["query_id"].unique(maintain_order=True).to_list()[:_SHOWN_QUERIES]
    return [
        (markdown.code(row["query_id"]), str(row["rank"]), markdown.code(row["example_id"]), f"{row['score']:.4g}")
        for query in queries
        for row in best.filter(pl.col("query_id") == query).iter_rows(named=True)
    ]
