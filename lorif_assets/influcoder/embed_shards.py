"""Embedding the training examples of shards on a worker; an example that the same encoder has seen keeps its vector."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from lorif_assets.attribution.stored.versions import embedding_version
from lorif_assets.compute.shard_work import Worker
from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.errors import MismatchError
from lorif_assets.influcoder.sampling import Role
from lorif_assets.influcoder.stored import StoredEncoder
from lorif_assets.influcoder.text_views import Decode, pool_text
from lorif_assets.lake.data_tables import TRAINING_EXAMPLES
from lorif_assets.lake.influcoder_tables import INFLUENCE_EMBEDDINGS
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints

if TYPE_CHECKING:
    from lorif_assets.influcoder.encoder import TextEncoder


@dataclass(frozen=True)
class EncoderOpening:
    """Loads an encoder, and the tokenizer of its checkpoint, on a worker; picklable."""

    lake: Lake
    checkpoints: Checkpoints
    settings: InflucoderSettings
    encoder: StoredEncoder

    def __call__(self, worker: Worker) -> "OpenedEncoder":
        """Return the encoder on the worker's first device."""
        tokenizer = self.checkpoints.load_tokenizer(self.checkpoints.get(self.encoder.checkpoint))
        model = self.encoder.load(self.lake, self.settings, worker.devices.first)
        return OpenedEncoder(self.lake, self.encoder, model, tokenizer.decode)


@dataclass(frozen=True)
class OpenedEncoder:
    """An encoder in memory, and what turns its checkpoint's tokens into text."""

    lake: Lake
    encoder: StoredEncoder
    model: "TextEncoder"
    decode: Decode


@dataclass(frozen=True)
class EmbeddedShard:
    """The rows of a shard, and how many of them had to be embedded."""

    rows: pa.Table
    newly_embedded: int

    @property
    def version(self) -> str:
        """The hash of what the rows were computed from."""
        return str(self.rows["computed_from"][0].as_py())


def embedded_shard(state: OpenedEncoder, shard: str) -> EmbeddedShard:
    """Embed a shard's examples that the encoder has not seen.

    Raises:
        MismatchError: the shard is not in the lake.
    """
    lake, encoder = state.lake, state.encoder
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
    vectors = state.model.embed([pool_text(row, state.decode) for row in new.iter_rows(named=True)], Role.POOL).numpy()
    by_hash = dict(known.iter_rows()) | dict(zip(new["content_hash"], vectors, strict=True))
    return EmbeddedShard(_rows(encoder, shard, examples, by_hash), new.height)


def commit_embeddings(lake: Lake, embedded: EmbeddedShard) -> EmbeddedShard:
    """Store a shard's embeddings, and return them."""
    partition = {name: embedded.rows[name][0].as_py() for name in INFLUENCE_EMBEDDINGS.partition_by}
    lake.replace(INFLUENCE_EMBEDDINGS, partition, embedded.rows)
    return embedded


def _rows(
    encoder: StoredEncoder, shard: str, examples: pl.DataFrame, vectors: Mapping[str, "np.ndarray | list[float]"]
) -> pa.Table:
    matrix = np.asarray([vectors[content] for content in examples["content_hash"]], dtype=np.float32)
    shard_hash = str(examples["shard_hash"][0])
    rows = examples.select("example_id", "row", "content_hash", "shard_hash").with_columns(
        checkpoint=pl.lit(encoder.checkpoint),
        shard=pl.lit(shard),
        encoder_hash=pl.lit(encoder.encoder_hash),
        computed_from=pl.lit(embedding_version(encoder.encoder_hash, shard_hash)),
    )
    offsets = np.arange(0, matrix.size + 1, matrix.shape[1], dtype=np.int32)
    return rows.to_arrow().append_column("embedding", pa.ListArray.from_arrays(offsets, matrix.ravel()))
