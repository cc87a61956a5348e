"""Query scores: which training examples made the model say each query's completion, and which spoke against it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import dagster as dg
import polars as pl

from lorif_assets.assets import partitions
from lorif_assets.assets.corpus import query_examples
from lorif_assets.assets.ekfac_preconditioners import ekfac_preconditioners
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.rejected_rows import replace_rejected
from lorif_assets.assets.svd_preconditioners import svd_preconditioners
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.checkpoint import StoredCheckpoint, attributions_together
from lorif_assets.attribution.score_checkpoint import CheckpointScoring
from lorif_assets.attribution.score_modes import ReadQuerySet
from lorif_assets.attribution.score_queries import LOWEST, QueryScores
from lorif_assets.config.settings import Settings
from lorif_assets.errors import LorifError, SourceError, UnsoundQueryError
from lorif_assets.influcoder.cascade import recalled_scores
from lorif_assets.lake.attribution_tables import QUERY_SCORES, QUERY_SUMMARIES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import Devices
from lorif_assets.tracking import Tracking


@dg.asset(
    group_name="attribution",
    partitions_def=partitions.checkpoint_by_query_set,
    deps=[
        dg.AssetDep(gradient_factors, partition_mapping=partitions.whole_checkpoint()),
        dg.AssetDep(svd_preconditioners, partition_mapping=partitions.whole_checkpoint()),
        dg.AssetDep(ekfac_preconditioners, partition_mapping=partitions.whole_checkpoint()),
        dg.AssetDep(query_examples, partition_mapping=partitions.same(partitions.QUERY_SET)),
    ],
    backfill_policy=dg.BackfillPolicy.single_run(),
    output_required=False,
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    metadata=table_metadata(QUERY_SCORES),
)
def query_scores(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    devices: dg.ResourceParam[Devices],
    tracking: dg.ResourceParam[Tracking],
) -> Iterator[dg.MaterializeResult[Any]]:
    """Proponents and opponents of every query of a set at one checkpoint, best first; many sets take one scan.

    With `recipe.recall = "influcoder"` they are chosen by `influence_embeddings`, and with `recipe.averaged_checkpoints`
    scores are averaged with those of earlier checkpoints. Neither is a declared dependency: without these settings, new
    embeddings or another checkpoint's factors would make scores look stale.
    """
    commits = PartitionCommits(context)
    for name, query_sets in partitions.by_checkpoint(context.partition_keys, partitions.QUERY_SET).items():
        recorded = StoredCheckpoint.read(lake, name, settings.recipe)
        *earlier, stored = attributions_together(settings, model_checkpoints, recorded)
        tags = {"dagster.run_id": context.run_id, "dagster.partition": ", ".join(query_sets.values())[:4_000]}
        with (
            devices.lease() as group,
            tracking.materialization(name, "query_scores", tags, settings.recipe.model_dump()) as run,
        ):
            checkpoint = stored.load(model_checkpoints, group)
            recall = partial(recalled_scores, settings)
            scoring = CheckpointScoring(context.log, settings, model_checkpoints, checkpoint, earlier, recall)
            asked: dict[str, ReadQuerySet] = {}
            failed: dict[str, LorifError] = {}
            for query_set, key in query_sets.items():
                try:
                    asked[query_set] = _read(scoring, query_set, key)
                except LorifError as error:
                    # One bad query set must not keep the others from being scored.
                    context.log.exception(f"{key} failed; going on with the other query sets")
                    failed[key] = error
            for index, (query_set, scored) in enumerate(scoring.scores(asked)):
                if isinstance(scored, UnsoundQueryError):
                    context.log.error(f"{query_sets[query_set]} failed; going on with the other query sets: {scored}")
                    failed[query_sets[query_set]] = scored
                    continue
                queries, figures = asked[query_set], _figures(scored.scores)
                partition = {"checkpoint": name, "query_set": query_set}
                constants = {
                    **partition,
                    "recipe_hash": settings.recipe.score_hash,
                    "computed_from": scored.version,
                }
                # The summaries come last: readers take them as the sign that the scores are there.
                for schema, frame in (
                    (QUERY_SCORES, scored.scores.scores),
                    (QUERY_SUMMARIES, scored.scores.summaries),
                ):
                    lake.replace(schema, partition, frame.with_columns(**_literals(constants)).to_arrow())
                if run:
                    run.metrics(figures, index)
                yield from commits.commit(
                    query_sets[query_set],
                    scored.version,
                    {
                        "dagster/row_count": scored.scores.scores.height,
                        "rejected_rows": queries.tokenized.rejected.num_rows,
                        "truncated_queries": queries.tokenized.n_truncated,
                        "examples_scanned": scored.scores.examples_scanned,
                        "scan": scored.scores.scan,
                        **({"averaged_with": [one.record.name for one in earlier]} if earlier else {}),
                        **scored.metadata,
                        **figures,
                        "top_influences": dg.MetadataValue.md(_top_influences(scored.scores.scores)),
                    },
                )
            # Before the devices are another's: the memory is not free while a name holds the model.
            del checkpoint, scoring
            if failed:
                first, cause = next(iter(failed.items()))
                if len(query_sets) == 1:
                    raise cause
                raise LorifError(f"{len(failed)} of {len(query_sets)} query sets failed, the first {first}: {cause}")


def _read(scoring: CheckpointScoring, query_set: str, key: str) -> ReadQuerySet:
    """Read a query set; its queries that cannot be used are listed in the table `rejected`."""
    queries = scoring.read(query_set)
    rejected = queries.tokenized.rejected
    replace_rejected(scoring.checkpoint.stored.lake, "query_scores", key, rejected)
    if not queries.tokenized.examples:
        raise SourceError(
            f"no query of the set {query_set!r} can be used; the first: {rejected['reason'].to_pylist()[0]}"
        )
    return queries


def _literals(constants: dict[str, str]) -> dict[str, pl.Expr]:
    return {name: pl.lit(value) for name, value in constants.items()}


def _figures(scored: QueryScores) -> dict[str, float]:
    summaries = scored.summaries
    return {
        "queries": summaries.height,
        "loss_per_token": float(summaries["loss"].sum()) / max(int(summaries["n_target_tokens"].sum()), 1),
        "query_error": scored.query_error,
        "top_10_share": float(summaries["top_10_share"].to_numpy().mean()),
        "top_100_share": float(summaries["top_100_share"].to_numpy().mean()),
    }


def _top_influences(scores: pl.DataFrame, shown_queries: int = 10, shown: int = 3) -> str:
    best = scores.filter(pl.col("side") != LOWEST).filter(pl.col("rank") <= shown)
    queries = best["query_id"].unique(maintain_order=True).to_list()[:shown_queries]
    lines = ["| query | rank | example | score |", "|---|---:|---|---:|"]
    lines += [
        f"| `{row['query_id']}` | {row['rank']} | `{row['example_id']}` | {row['score']:.4g} |"
        for query in queries
        for row in best.filter(pl.col("query_id") == query).iter_rows(named=True)
    ]
    return "\n".join(lines)
