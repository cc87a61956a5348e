"""Recall curves: which share of the exact leading examples an encoder's first n proposals hold, and what that costs."""

import time
from typing import Any

import dagster as dg
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.influence_embeddings import influence_embeddings
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.preconditioners import PRECONDITIONERS
from lorif_assets.assets.query_examples import query_examples
from lorif_assets.attribution.checkpoints.checkpoint import averaged_checkpoints, current_score_versions
from lorif_assets.attribution.queries.precondition_queries import preconditioned_queries
from lorif_assets.attribution.scores.score_positions import scores_at
from lorif_assets.attribution.stored.versions import recall_curve_version
from lorif_assets.data.stored_examples import stored_query_set
from lorif_assets.errors import MismatchError
from lorif_assets.freshness.influcoder import stale_recall_curves
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.proposals import encoder_similarities, likely_proponents
from lorif_assets.influcoder.sampling import Role
from lorif_assets.influcoder.stored import stored_encoder
from lorif_assets.influcoder.text_views import anchor_text
from lorif_assets.lake.factor_row_groups import scan_bytes
from lorif_assets.lake.influcoder_tables import RECALL_CURVES
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.pages import markdown

_COLUMNS = ("k", "candidates", "recall", "random", "read", "seconds")
_LEADING = (10, 100)
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@attribution_asset(
    group="evaluation",
    table=RECALL_CURVES,
    partitions=partitions.checkpoint_by_query_set,
    inputs=[
        Input(gradient_factors, partitions.whole_checkpoint()),
        *(Input(asset, partitions.whole_checkpoint()) for asset in PRECONDITIONERS),
        Input(influence_embeddings, partitions.whole_checkpoint()),
        Input(query_examples, partitions.same(partitions.QUERY_SET)),
    ],
    find_stale=stale_recall_curves,
    is_used=lambda settings: settings.influcoder.enabled,
    on_device=True,
    one_at_a_time=True,
    kinds={"torch", "deltalake"},
)
def recall_curves(run: PartitionRun) -> Materializations:
    """Recall of LoRIF's exact top 10 and 100 among the encoder's n proposals, for n from 1 % to half of the examples."""
    require_influcoder()
    import torch

    from lorif_assets.mathematics.influcoder.agreement import recall_at
    from lorif_assets.mathematics.scores.scoring import block_scores

    settings, lake = run.settings, run.lake
    for name, query_sets in run.by_checkpoint().items():
        stored = run.stored(name)
        encoder = stored_encoder(lake, stored.record, settings.influcoder, settings.recipe)
        # What is missing is an error before a device is waited for.
        factors, _ = stored.factors, stored.preconditioners
        layers, n = list(stored.record.layer_shapes), factors.n_examples
        bytes_full_scan = scan_bytes(lake, factors.files, layers)
        with run.lease() as group:
            checkpoint = stored.load(run.checkpoints, group)
            attributed = checkpoint.model
            model = encoder.load(lake, settings.influcoder, group.first)
            for query_set, key in query_sets.items():
                queries = stored_query_set(lake, query_set)
                tokenized = attributed.tokenized_queries(queries.to_arrow()).examples
                if not tokenized:
                    raise MismatchError(f"no query of the set {query_set!r} can be used; see `query_examples`")
                contents = {row["query_id"]: row for row in queries.iter_rows(named=True)}
                texts = [anchor_text(contents[query.example_id], attributed.tokenizer.decode) for query in tokenized]
                ready = preconditioned_queries(checkpoint, tokenized, settings.batch)
                started = time.monotonic()
                blocks = factors.scan_blocks(layers, settings.batch.scan_rows, group.first)
                exact = torch.cat([block_scores(ready.by_layer, block).cpu() for block in read_ahead(blocks)], dim=1)
                seconds_full_scan = time.monotonic() - started
                started = time.monotonic()
                similarities = encoder_similarities(factors, encoder, model.embed(texts, Role.ANCHOR))
                seconds_recall = time.monotonic() - started
                rows = []
                for candidates in sorted({max(1, round(share * n)) for share in _SHARES}):
                    started = time.monotonic()
                    positions = likely_proponents(similarities, candidates)
                    _, bytes_read = scores_at(factors, ready, positions, group.first)
                    seconds = seconds_recall + time.monotonic() - started
                    rows += [
                        {
                            "k": k,
                            "candidates": candidates,
                            "n_examples": n,
                            "recall": recall_at(similarities, exact, k, [candidates])[0],
                            "random_recall": candidates / n,
                            "bytes_read": bytes_read,
                            "bytes_full_scan": bytes_full_scan,
                            "seconds": seconds,
                            "seconds_full_scan": seconds_full_scan,
                        }
                        for k in _LEADING
                        if k <= n
                    ]
                wanted = {query_set: queries["query_set_hash"][0]}
                averaged = averaged_checkpoints(settings, run.checkpoints.complete(), stored)
                scores = current_score_versions(settings, run.checkpoints, averaged, factors.shard_hashes, wanted)[
                    query_set
                ]
                version = recall_curve_version(scores, encoder.encoder_hash)
                constants = {
                    "checkpoint": name,
                    "query_set": query_set,
                    "recipe_hash": settings.recipe.score_hash,
                    "computed_from": version,
                }
                table = pa.Table.from_pylist([row | constants for row in rows], schema=RECALL_CURVES.columns)
                lake.replace(RECALL_CURVES, {"checkpoint": name, "query_set": query_set}, table)
                yield from run.commit(
                    key,
                    version,
                    {
                        "dagster/row_count": table.num_rows,
                        "seconds_full_scan": seconds_full_scan,
                        "seconds_recall": seconds_recall,
                        "recall": dg.MetadataValue.md(markdown.table(_COLUMNS, map(_cells, rows), numbers=_COLUMNS)),
                    },
                )
            # Before the devices are another's: the memory is not free while a name holds the model.
            del checkpoint, attributed, model


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    shares = (row["recall"], row["random_recall"], row["bytes_read"] / row["bytes_full_scan"])
    return (str(row["k"]), f"{row['candidates']:,}", *(f"{share:.0%}" for share in shares), f"{row['seconds']:.3f}")
