"""Influcoder's results in the lake: a checkpoint's targets, encoder and embeddings, checked to be up to date."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.versions import embedding_version, encoder_version
from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.config.recipe import Recipe
from lorif_assets.config.settings import Settings
from lorif_assets.errors import MismatchError
from lorif_assets.influcoder.encoder_places import encoder_content
from lorif_assets.influcoder.sampling import Role, Split, deal_again
from lorif_assets.lake.influcoder_tables import INFLUCODER_ENCODERS, INFLUENCE_EMBEDDINGS, INFLUENCE_TARGETS
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    import torch

    from lorif_assets.influcoder.encoder import TextEncoder


@dataclass(frozen=True)
class StoredTargets:
    """Texts of anchors and pool as the encoder reads them, their splits, and the influence [a, p] of pool on anchors."""

    anchors: tuple[str, ...]
    pool: tuple[str, ...]
    anchor_splits: tuple[Split, ...]
    pool_splits: tuple[Split, ...]
    matrix: "torch.Tensor"
    teacher: str
    seconds: float
    version: str

    def deal_again(self, seed: int) -> "StoredTargets":
        """Return the same targets with the same number of other texts held out."""

        def dealt(splits: tuple[Split, ...]) -> tuple[Split, ...]:
            held_out = deal_again([split is Split.HELD_OUT for split in splits], seed)
            return tuple(Split.HELD_OUT if out else Split.DISTIL for out in held_out)

        return replace(self, anchor_splits=dealt(self.anchor_splits), pool_splits=dealt(self.pool_splits))

    def of_split(self, split: Split) -> tuple[list[int], list[int]]:
        """Return the positions of the split's anchors and of its pool texts."""
        return (
            [i for i, one in enumerate(self.anchor_splits) if one is split],
            [i for i, one in enumerate(self.pool_splits) if one is split],
        )


def stored_targets(lake: Lake, record: CheckpointRecord, settings: InflucoderSettings, recipe: Recipe) -> StoredTargets:
    """Look up a checkpoint's targets.

    Raises:
        MismatchError: there are none, or they come from other settings, other weights or another tokenizer.
    """
    import torch

    rows = lake.read(INFLUENCE_TARGETS, checkpoint=record.name).sort("role", "position")
    if rows.is_empty():
        raise MismatchError(
            f"the checkpoint {record.name!r} has no influence targets; materialize `influence_targets` first"
        )
    expected = {
        "recipe_hash": settings.targets_hash(recipe),
        "weights_hash": record.weights_hash,
        "tokenizer_hash": record.tokenizer_hash,
    }
    for column, value in expected.items():
        if rows[column][0] != value:
            raise MismatchError(
                f"the influence targets of {record.name!r} have {column} {rows[column][0]}, but settings and checkpoint have "
                f"{value}; materialize `influence_targets` again"
            )
    anchors, pool = (rows.filter(pl.col("role") == role) for role in (Role.ANCHOR, Role.POOL))
    return StoredTargets(
        anchors=tuple(anchors["text"]),
        pool=tuple(pool["text"]),
        anchor_splits=tuple(Split(split) for split in anchors["split"]),
        pool_splits=tuple(Split(split) for split in pool["split"]),
        matrix=torch.from_numpy(anchors["targets"].explode().to_numpy().reshape(anchors.height, pool.height).copy()),
        teacher=rows["teacher"][0],
        seconds=rows["seconds"][0],
        version=rows["computed_from"][0],
    )


@dataclass(frozen=True)
class StoredEncoder:
    """A checkpoint's encoder: its file, the hash of its weights, and the version of what it was trained from."""

    checkpoint: str
    uri: str
    width: int
    encoder_hash: str
    seconds: float
    version: str

    def load(self, lake: Lake, settings: InflucoderSettings, device: "torch.device") -> "TextEncoder":
        """Load it."""
        from lorif_assets.influcoder.encoder import TextEncoder

        return TextEncoder.from_archive(lake.read_file(self.uri), settings.encoder_length, device)


def encoder_row(row: Mapping[str, Any]) -> StoredEncoder:
    """Return the encoder of a row of `influcoder_encoders`."""
    return StoredEncoder(
        row["checkpoint"], row["uri"], row["width"], row["encoder_hash"], row["seconds"], row["computed_from"]
    )


def stored_encoder(lake: Lake, record: CheckpointRecord, settings: InflucoderSettings, recipe: Recipe) -> StoredEncoder:
    """Look up a checkpoint's encoder.

    Raises:
        MismatchError: there is none, or it was trained with other settings or on other targets than those stored.
    """
    rows = lake.read(INFLUCODER_ENCODERS, checkpoint=record.name).to_dicts()
    if not rows:
        raise MismatchError(f"the checkpoint {record.name!r} has no encoder; materialize `influcoder_encoder` first")
    encoder = encoder_row(rows[0])
    version = encoder_version(
        settings.distillation_hash(recipe), stored_targets(lake, record, settings, recipe).version
    )
    if encoder.version != version:
        raise MismatchError(
            f"the encoder of {record.name!r} was computed from {encoder.version}, but settings and targets have {version}; "
            "materialize `influcoder_encoder` again"
        )
    return encoder


@dataclass(frozen=True)
class ShardEmbeddings:
    """One shard's embeddings [n, h], unit norm, with the examples' ids."""

    shard: str
    example_ids: tuple[str, ...]
    embeddings: "torch.Tensor"


def shard_embeddings(lake: Lake, encoder: StoredEncoder, shard_hashes: Mapping[str, str]) -> Iterator[ShardEmbeddings]:
    """Yield the embeddings of shards, in the order of their names.

    Raises:
        MismatchError: a shard has none, or they come from another encoder or other data.
    """
    import torch

    for shard in sorted(shard_hashes):
        rows = lake.read(
            INFLUENCE_EMBEDDINGS,
            ["row", "example_id", "embedding", "computed_from"],
            checkpoint=encoder.checkpoint,
            shard=shard,
        ).sort("row")
        version = embedding_version(encoder.encoder_hash, shard_hashes[shard])
        found = rows["computed_from"].unique().to_list()
        if found != [version]:
            raise MismatchError(
                f"the embeddings of shard {shard!r} at {encoder.checkpoint!r} were computed from "
                f"{found[0] if found else 'nothing'}, but encoder and data have {version}; materialize "
                "`influence_embeddings` for it"
            )
        values = rows["embedding"].explode().to_numpy().reshape(rows.height, encoder.width)
        yield ShardEmbeddings(shard, tuple(rows["example_id"]), torch.from_numpy(values.copy()))


def in_order_of(shard: ShardEmbeddings, example_ids: Sequence[str]) -> "torch.Tensor":
    """Return a shard's embeddings in the order of the given ids.

    Raises:
        MismatchError: an id has no embedding.
    """
    place = {name: row for row, name in enumerate(shard.example_ids)}
    missing = [name for name in example_ids if name not in place]
    if missing:
        raise MismatchError(
            f"the example {missing[0]!r} of shard {shard.shard!r} has factors but no embedding; materialize "
            "`influence_embeddings` for this shard again"
        )
    return shard.embeddings[[place[name] for name in example_ids]]


def encoder_base_version(settings: Settings) -> str | None:
    """Return the hash of what training starts from; None where it cannot be told."""
    return encoder_content(settings, settings.influcoder.encoder)


def encoder_weights(lake: Lake, records: Sequence[CheckpointRecord]) -> Mapping[str, str]:
    """Return the hash of the weights of each checkpoint's stored encoder."""
    stored = dict(lake.read(INFLUCODER_ENCODERS, ["checkpoint", "encoder_hash"]).iter_rows())
    return {record.name: stored[record.name] for record in records if record.name in stored}
