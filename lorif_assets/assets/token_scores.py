"""Token scores: what each token of an example, and of a query, contributed to leading scores."""

import json
from functools import partial

import polars as pl

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.beside_scores import Computed, beside_scores
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.attribution.checkpoints.checkpoint import AttributedCheckpoint
from lorif_assets.attribution.pairs.listed_examples import listed_examples
from lorif_assets.attribution.pairs.token_rows import token_rows
from lorif_assets.attribution.scores.score_modes import ReadQuerySet
from lorif_assets.attribution.scores.stored_rankings import leading_rows, stored_ranking
from lorif_assets.freshness.attribution import stale_token_scores
from lorif_assets.lake.attribution_tables import QUERY_SUMMARIES, TOKEN_SCORES
from lorif_assets.lake.lake import Lake


@attribution_asset(
    group="attribution",
    table=TOKEN_SCORES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[Input(query_scores)],
    find_stale=stale_token_scores,
    is_used=lambda settings: settings.token_scores.enabled,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def token_scores(run: PartitionRun) -> Materializations:
    """What each token of the leading examples, and of the query, contributed to a score.

    Each side's shares sum to the pair's score from uncompressed gradients, which is stored beside the compressed one.
    Off by default (`token_scores.enabled`): they take about twice the passes of scoring these pairs from scratch.
    """
    for name, query_sets in run.by_checkpoint().items():
        stored = run.stored(name)
        _ = stored.preconditioners
        with run.lease() as group, run.tracked(name, query_sets.values()):
            checkpoint = stored.load(run.checkpoints, group)
            compute = partial(_token_scores, run, checkpoint)
            yield from beside_scores(run, TOKEN_SCORES, name, query_sets, run.settings.token_scores.version, compute)
            # Before another run gets the devices: the memory is not free while a name refers to the model.
            del checkpoint, compute


def _token_scores(run: PartitionRun, checkpoint: AttributedCheckpoint, query_set: str) -> Computed:
    name, settings = checkpoint.stored.record.name, run.settings
    listed = leading_rows(stored_ranking(run.lake, name, query_set, "plain"), settings.token_scores.top_k)
    queries = ReadQuerySet.of(checkpoint, query_set).tokenized.examples
    examples = listed_examples(run.lake, checkpoint.model, listed.select("shard", "example_id").iter_rows())
    with run.progress(f"{name} {query_set}", listed.height, "pairs") as progress:
        rows = token_rows(checkpoint.model, checkpoint.inverse_of, queries, listed, examples, settings.batch, progress)
    return rows, _figures(rows, is_averaged=_is_averaged(run.lake, name, query_set))


def _is_averaged(lake: Lake, checkpoint: str, query_set: str) -> bool:
    averaged = lake.read(QUERY_SUMMARIES, ["averaged"], checkpoint=checkpoint, query_set=query_set)["averaged"]
    return any(len(json.loads(weights)) > 1 for weights in averaged.drop_nulls().unique())


def _figures(rows: pl.DataFrame, *, is_averaged: bool) -> dict[str, float]:
    pairs = rows.select("query_id", "shard", "example_id", "exact_score", "stored_score").unique()
    figures: dict[str, float] = {"pairs": pairs.height}
    # Averaged with other checkpoints' scores, stored ones are in another unit: the gap would not be that of compression.
    if not is_averaged:
        gap = pairs.select((pl.col("exact_score") - pl.col("stored_score")).pow(2).sum().sqrt()).item()
        size = pairs.select(pl.col("exact_score").pow(2).sum().sqrt()).item()
        figures["relative_gap_to_stored_scores"] = float(gap / size) if size else 0.0
    return figures
