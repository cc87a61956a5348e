"""Query scores: which training examples made the model say each query's completion, and which spoke against it."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl

from lorif_assets import partitions
from lorif_assets.assets.corpus import query_examples
from lorif_assets.assets.ekfac_preconditioners import ekfac_preconditioners
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.rejected_rows import replace_rejected
from lorif_assets.assets.svd_preconditioners import svd_preconditioners
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attributed_model import AttributedModel, checkpoint_record
from lorif_assets.cascade import recalled_scores
from lorif_assets.errors import MismatchError, SourceError
from lorif_assets.progress import Progress
from lorif_assets.query_scoring import LOWEST, QueryScores, extremes_kept, score_queries
from lorif_assets.settings import Settings
from lorif_assets.stored_attribution import StoredAttribution, averaged_together
from lorif_assets.versions import averaged_version, recalled_version
from resources.devices import Devices
from resources.lake import Lake
from resources.models import Checkpoints
from resources.schemas import QUERY_EXAMPLES, QUERY_SCORES, QUERY_SUMMARIES
from resources.tracking import Tracking


@dg.asset(
    group_name="attribution",
    partitions_def=partitions.checkpoint_by_query_set,
    deps=[
        dg.AssetDep(gradient_factors, partition_mapping=partitions.whole_checkpoint()),
        dg.AssetDep(svd_preconditioners, partition_mapping=partitions.whole_checkpoint()),
        dg.AssetDep(ekfac_preconditioners, partition_mapping=partitions.whole_checkpoint()),
        dg.AssetDep(query_examples, partition_mapping=partitions.same(partitions.QUERY_SET)),
    ],
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    metadata=table_metadata(QUERY_SCORES),
)
def query_scores(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: Lake,
    model_checkpoints: Checkpoints,
    devices: Devices,
    tracking: Tracking,
) -> Iterator[dg.MaterializeResult[Any]]:
    """Proponents and opponents of every query of a set at one checkpoint, best first.

    With `recipe.recall = "influcoder"` they are chosen by `influence_embeddings`, and with `recipe.averaged_checkpoints`
    scores are averaged with those of earlier checkpoints. Neither is a declared dependency: without these settings, new
    embeddings or another checkpoint's factors would make scores look stale.
    """
    from lorif_assets.score_averaging import earlier_checkpoints
    from lorif_assets.score_merging import keep_full_scan, last_full_scan, scan_version

    commits = PartitionCommits(context)
    for name, query_sets in partitions.by_checkpoint(context.partition_keys, partitions.QUERY_SET).items():
        record = checkpoint_record(lake, name, settings.recipe)
        *before, attribution = (
            StoredAttribution.of(lake, one, settings.recipe) for one in averaged_together(settings, lake, record)
        )
        stored, preconditioners = attribution.factors, attribution.preconditioners
        tags = {"dagster.run_id": context.run_id, "dagster.partition": ", ".join(query_sets.values())[:4_000]}
        with (
            devices.lease() as device,
            tracking.materialization(name, "query_scores", tags, settings.recipe.model_dump()) as run,
        ):
            attributed = AttributedModel.load(lake, model_checkpoints, name, settings.recipe, device)
            for index, (query_set, key) in enumerate(query_sets.items()):
                queries = lake.read(QUERY_EXAMPLES, query_set=query_set).sort("row")
                if queries.is_empty():
                    raise MismatchError(
                        f"the query set {query_set!r} is not in `query_examples`; materialize it there first"
                    )
                tokenized = attributed.tokenized(queries.to_arrow(), id_column="query_id")
                replace_rejected(lake, "query_scores", key, tokenized.rejected)
                if not tokenized.examples:
                    reasons = tokenized.rejected["reason"].to_pylist()
                    raise SourceError(f"no query of the set {query_set!r} can be used; the first: {reasons[0]}")
                query_set_hash = queries["query_set_hash"][0]
                version = averaged_version(
                    [one.score_version(settings.recipe, query_set_hash) for one in (*before, attribution)]
                )
                recalled = None
                if settings.recipe.recall == "influcoder":
                    recalled = recalled_scores(
                        attributed, tokenized.examples, queries, stored, preconditioners, lake, settings
                    )
                    version = recalled_version(version, recalled.encoder_hash)
                    if recalled.scores is None:
                        context.log.warning(f"{key}: {recalled.metadata['recall']}")
                if recalled and recalled.scores:
                    scored, rate = recalled.scores, recalled.rate
                else:
                    scan_key = scan_version(settings.recipe, stored, query_set_hash)
                    with Progress(context.log, f"{name} {query_set}", stored.n_examples, "examples") as progress:
                        scored = score_queries(
                            attributed,
                            tokenized.examples,
                            stored,
                            preconditioners,
                            lake,
                            top_k=settings.recipe.top_k,
                            batch=settings.batch,
                            progress=progress,
                            last=last_full_scan(lake, name, query_set, scan_key, extremes_kept(settings.recipe.top_k)),
                            earlier=earlier_checkpoints(
                                attributed,
                                stored,
                                before,
                                tokenized.examples,
                                lake,
                                model_checkpoints,
                                settings.batch,
                            ),
                        )
                    rate = progress.rate
                    if scored.full_scan:
                        keep_full_scan(lake, name, query_set, scan_key, scored.full_scan)
                constants = {
                    "checkpoint": name,
                    "query_set": query_set,
                    "recipe_hash": settings.recipe.score_hash,
                    "computed_from": version,
                }
                figures = _figures(scored)
                partition = {"checkpoint": name, "query_set": query_set}
                # The summaries come last: readers take them as the sign that the scores are there.
                for schema, frame in ((QUERY_SCORES, scored.scores), (QUERY_SUMMARIES, scored.summaries)):
                    lake.replace(schema, partition, frame.with_columns(**_literals(constants)).to_arrow())
                if run:
                    run.metrics(figures, index)
                yield from commits.commit(
                    key,
                    version,
                    {
                        "dagster/row_count": scored.scores.height,
                        "rejected_rows": tokenized.rejected.num_rows,
                        "truncated_queries": tokenized.n_truncated,
                        "examples_scanned": scored.examples_scanned,
                        "scan": scored.scan,
                        "examples_per_second": round(rate, 1),
                        **({"averaged_with": [one.record.name for one in before]} if before else {}),
                        **(recalled.metadata if recalled else {}),
                        **figures,
                        "top_influences": dg.MetadataValue.md(_top_influences(scored.scores)),
                    },
                )


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
