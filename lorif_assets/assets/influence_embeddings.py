"""Influence embeddings: every training example as the encoder sees it. They are the index of the second method."""

from functools import partial

from lorif_assets.assets import partitions
from lorif_assets.assets.attribution_asset import Input, Materializations, attribution_asset
from lorif_assets.assets.influcoder_encoder import influcoder_encoder
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.compute.shard_work import Step
from lorif_assets.freshness.influcoder import stale_embeddings
from lorif_assets.influcoder.embed_shards import EncoderOpening, commit_embeddings, embedded_shard
from lorif_assets.influcoder.extra import require_influcoder
from lorif_assets.influcoder.stored import stored_encoder
from lorif_assets.lake.influcoder_tables import INFLUENCE_EMBEDDINGS


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
        with run.workers(EncoderOpening(lake, run.checkpoints, chosen, encoder)) as workers:
            found = workers.map_shards(Step(embedded_shard), list(shards), partial(commit_embeddings, lake))
            for shard, outcome in found:
                embedded = outcome.result()
                yield from run.commit(
                    shards[shard],
                    embedded.version,
                    {
                        "dagster/row_count": embedded.rows.num_rows,
                        "newly_embedded": embedded.newly_embedded,
                        "bytes": embedded.rows.num_rows * encoder.width * 4,
                        "encoder": encoder.encoder_hash,
                    },
                )
