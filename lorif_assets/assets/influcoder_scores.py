"""Influcoder scores: the second method's answer, one forward pass per query and inner products with the index."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.influence_embeddings import influence_embeddings
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.query_examples import query_examples
from lorif_assets.attribution.scores.score_rows import all_pairs, extreme_pairs
from lorif_assets.attribution.stored.versions import encoder_score_version
from lorif_assets.config.settings import Settings
from lorif_assets.data.stored_examples import stored_query_set, stored_shard_hashes
from lorif_assets.freshness.influcoder import stale_encoder_scores
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.nearest import approximately_nearest, embedded_examples
from lorif_assets.influcoder.sampling import Role
from lorif_assets.influcoder.stored import StoredEncoder, shard_embeddings, stored_encoder
from lorif_assets.influcoder.text_views import anchor_text
from lorif_assets.lake.influcoder_tables import INFLUCODER_SCORES
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    import torch


@attribution_asset(
    group="influcoder",
    table=INFLUCODER_SCORES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[
        Input(influence_embeddings, partitions.whole_checkpoint()),
        Input(query_examples, partitions.same(partitions.QUERY_SET)),
    ],
    find_stale=stale_encoder_scores,
    is_used=lambda settings: settings.influcoder.enabled,
    on_device=True,
    one_at_a_time=True,
    kinds={"torch", "deltalake"},
)
def influcoder_scores(run: PartitionRun) -> Materializations:
    """Cosines between the embeddings of every query of a set and of the examples: the highest and lowest of each."""
    require_influcoder()
    settings, lake, top_k = run.settings, run.lake, run.settings.recipe.top_k
    for name, query_sets in run.by_checkpoint().items():
        encoder = stored_encoder(lake, run.stored(name).record, settings.influcoder, settings.recipe)
        hashes = stored_shard_hashes(lake)
        decode = run.checkpoints.load_tokenizer(run.checkpoints.get(name)).decode
        with run.lease() as group:
            model = encoder.load(lake, settings.influcoder, group.first)
            for query_set, key in query_sets.items():
                queries = stored_query_set(lake, query_set)
                started = time.monotonic()
                embedded = model.embed([anchor_text(row, decode) for row in queries.iter_rows(named=True)], Role.ANCHOR)
                seconds_of_queries = time.monotonic() - started
                rows, metadata = _scored(lake, encoder, hashes, queries["query_id"].to_list(), embedded, settings)
                version = encoder_score_version(
                    encoder.encoder_hash, hashes, queries["query_set_hash"][0], top_k, settings.influcoder.search_hash
                )
                rows = rows.with_columns(
                    checkpoint=pl.lit(name),
                    query_set=pl.lit(query_set),
                    recipe_hash=pl.lit(settings.influcoder.distillation_hash(settings.recipe)),
                    computed_from=pl.lit(version),
                    # A cosine is relative to the example's size already.
                    relative_score=pl.lit(None, pl.Float32),
                )
                lake.replace(INFLUCODER_SCORES, {"checkpoint": name, "query_set": query_set}, rows.to_arrow())
                yield from run.commit(
                    key,
                    version,
                    {
                        "dagster/row_count": rows.height,
                        "queries": queries.height,
                        **metadata,
                        "seconds": time.monotonic() - started,
                        "seconds_of_queries": seconds_of_queries,
                    },
                )


def _scored(
    lake: Lake,
    encoder: StoredEncoder,
    shard_hashes: Mapping[str, str],
    names: Sequence[str],
    queries: "torch.Tensor",
    settings: Settings,
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return a score table, and what to show of the search: exact up to a number of examples, or where all are listed."""
    import torch

    from lorif_assets.mathematics.scores.scoring import ScoreExtremes

    top_k, n = settings.recipe.top_k, embedded_examples(lake, encoder, shard_hashes)
    if top_k != "all" and n > settings.influcoder.exact_up_to:
        nearest = approximately_nearest(lake, encoder, shard_hashes, queries, top_k, settings.influcoder)
        rows = extreme_pairs(names, nearest.extremes, top_k, nearest.examples)
        return rows, {"examples": n, **nearest.metadata}
    examples: list[tuple[str, str]] = []
    extremes, every = ScoreExtremes.empty(len(names), 0 if top_k == "all" else top_k), []
    for shard in shard_embeddings(lake, encoder, shard_hashes):
        scores = queries @ shard.embeddings.mT
        if top_k == "all":
            every.append(scores)
        else:
            extremes = extremes.update(scores, len(examples))
        examples += [(example, shard.shard) for example in shard.example_ids]
    places = dict(enumerate(examples))
    rows = (
        all_pairs(names, torch.cat(every, dim=1), places)
        if top_k == "all"
        else extreme_pairs(names, extremes, min(top_k, n), places)
    )
    return rows, {"examples": n, "search": "exact"}
