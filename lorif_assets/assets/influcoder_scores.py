"""Influcoder scores: the second method's answer, one forward pass per query and inner products with the index."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from lorif_assets.assets import partitions
from lorif_assets.assets.corpus import query_examples
from lorif_assets.assets.influence_embeddings import influence_embeddings
from lorif_assets.assets.partition_commits import PartitionCommits
from lorif_assets.assets.table_metadata import OWNERS, table_metadata
from lorif_assets.attribution.model import checkpoint_record
from lorif_assets.attribution.score_queries import all_pairs, extreme_pairs
from lorif_assets.attribution.versions import encoder_score_version
from lorif_assets.config.settings import Settings
from lorif_assets.errors import MismatchError
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.nearest import approximately_nearest, embedded_examples
from lorif_assets.influcoder.sampling import Role
from lorif_assets.influcoder.stored import StoredEncoder, shard_embeddings, stored_encoder
from lorif_assets.influcoder.text_views import anchor_text
from lorif_assets.lake.attribution_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.influcoder_tables import INFLUCODER_SCORES
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import Devices

if TYPE_CHECKING:
    import torch


@dg.asset(
    group_name="influcoder",
    partitions_def=partitions.checkpoint_by_query_set,
    deps=[
        dg.AssetDep(influence_embeddings, partition_mapping=partitions.whole_checkpoint()),
        dg.AssetDep(query_examples, partition_mapping=partitions.same(partitions.QUERY_SET)),
    ],
    output_required=False,
    pool="gpu",
    code_version="1",
    owners=OWNERS,
    kinds={"torch", "deltalake"},
    metadata=table_metadata(INFLUCODER_SCORES),
)
def influcoder_scores(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    model_checkpoints: dg.ResourceParam[Checkpoints],
    devices: dg.ResourceParam[Devices],
) -> Iterator[dg.MaterializeResult[Any]]:
    """Cosines between the embeddings of every query of a set and of the examples: the highest and lowest of each."""
    require_influcoder()
    commits = PartitionCommits(context)
    top_k = settings.recipe.top_k
    for name, query_sets in partitions.by_checkpoint(context.partition_keys, partitions.QUERY_SET).items():
        record = checkpoint_record(lake, name, settings.recipe)
        encoder = stored_encoder(lake, record, settings.influcoder, settings.recipe)
        hashes = dict(lake.read(TRAINING_EXAMPLES, ["shard", "shard_hash"]).unique().iter_rows())
        decode = model_checkpoints.load_tokenizer(model_checkpoints.get(name)).decode
        with devices.lease() as group:
            model = encoder.load(lake, settings.influcoder, group.first)
            for query_set, key in query_sets.items():
                queries = lake.read(QUERY_EXAMPLES, query_set=query_set).sort("row")
                if queries.is_empty():
                    raise MismatchError(
                        f"the query set {query_set!r} is not in `query_examples`; materialize it there first"
                    )
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
                )
                lake.replace(INFLUCODER_SCORES, {"checkpoint": name, "query_set": query_set}, rows.to_arrow())
                yield from commits.commit(
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
