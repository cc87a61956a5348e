"""Influence embeddings: every training example as the encoder sees it. They are the index of the second method."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.influcoder_encoder import influcoder_encoder
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.attribution.versions import embedding_version
from lorif_assets.errors import MismatchError
from lorif_assets.freshness.influcoder import stale_embeddings
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.sampling import Role
from lorif_assets.influcoder.stored import StoredEncoder, stored_encoder
from lorif_assets.influcoder.text_views import Decode, pool_text
from lorif_assets.lake.attribution_tables import TRAINING_EXAMPLES
from lorif_assets.lake.influcoder_tables import INFLUENCE_EMBEDDINGS
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    from lorif_assets.influcoder.encoder import TextEncoder


@attribution_asset(
    group="influcoder",
    table=INFLUENCE_EMBEDDINGS,
    partitions=partitions.checkpoint_by_shard,
    inputs=[
        Input(training_examples, partitions.same(partitions.SHARD)),
        Input(influcoder_encoder, partitions.same(partitions.CHECKPOINT)),
    ],
    find_stale=stale_embeddings,
    is_used=lambda settings: settings.influcoder.enabled,
    on_device=True,
    kinds={"torch", "deltalake"},
)
def influence_embeddings(run: PartitionRun) -> Materializations:
    """One vector per training example and checkpoint; an example that the same encoder has seen keeps its vector."""
    require_influcoder()
    lake, chosen = run.lake, run.settings.influcoder
    for name, shards in run.by_checkpoint().items():
        encoder = stored_encoder(lake, run.stored(name).record, chosen, run.settings.recipe)
        decode = run.checkpoints.load_tokenizer(run.checkpoints.get(name)).decode
        with run.lease() as group:
            model = encoder.load(lake, chosen, group.first)
            for shard, key in shards.items():
                rows, embedded = _embedded(lake, encoder, model, shard, decode)
                lake.replace(INFLUENCE_EMBEDDINGS, {"checkpoint": name, "shard": shard}, rows)
                yield from run.commit(
                    key,
                    rows["computed_from"][0].as_py(),
                    {
                        "dagster/row_count": rows.num_rows,
                        "newly_embedded": embedded,
                        "bytes": rows.num_rows * encoder.width * 4,
                        "encoder": encoder.encoder_hash,
                    },
                )


def _embedded(
    lake: Lake, encoder: StoredEncoder, model: "TextEncoder", shard: str, decode: Decode
) -> tuple[pa.Table, int]:
    """Return a shard's rows, and how many of them had to be embedded."""
    examples = lake.read(TRAINING_EXAMPLES, shard=shard).sort("row")
    if examples.is_empty():
        raise MismatchError(f"the shard {shard!r} is not in `training_examples`; materialize it there first")
    known = lake.read(
        INFLUENCE_EMBEDDINGS,
        ["content_hash", "embedding"],
        checkpoint=encoder.checkpoint,
        shard=shard,
        encoder_hash=encoder.encoder_hash,
    ).unique("content_hash")
    new = examples.filter(~pl.col("content_hash").is_in(known["content_hash"].implode())).unique(
        "content_hash", maintain_order=True
    )
    vectors = model.embed([pool_text(row, decode) for row in new.iter_rows(named=True)], Role.POOL).numpy()
    by_hash = dict(known.iter_rows()) | dict(zip(new["content_hash"], vectors, strict=True))
    matrix = np.asarray([by_hash[content] for content in examples["content_hash"]], dtype=np.float32)
    shard_hash = str(examples["shard_hash"][0])
    rows = examples.select("example_id", "row", "content_hash", "shard_hash").with_columns(
        checkpoint=pl.lit(encoder.checkpoint),
        shard=pl.lit(shard),
        encoder_hash=pl.lit(encoder.encoder_hash),
        computed_from=pl.lit(embedding_version(encoder.encoder_hash, shard_hash)),
    )
    offsets = np.arange(0, matrix.size + 1, matrix.shape[1], dtype=np.int32)
    lists = pa.ListArray.from_arrays(offsets, matrix.ravel())
    return rows.to_arrow().append_column("embedding", lists), new.height
