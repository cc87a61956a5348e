"""Which of Influcoder's partitions are missing or out of date.

Targets keep their sample while its texts exist unchanged, so that new data is embedded and nothing is trained.
"""

import polars as pl

from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.versions import (
    embedding_version,
    encoder_score_version,
    encoder_version,
    recall_curve_version,
)
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.evaluation.subset_teacher import SubsetTeacher
from lorif_assets.freshness.stale import MISSING, Stale, StalePartitions, stale_partitions
from lorif_assets.freshness.view import Freshness
from lorif_assets.influcoder.stored import encoder_base_version
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.influcoder_tables import (
    INFLUCODER_AGREEMENT,
    INFLUCODER_ENCODERS,
    INFLUCODER_SCORES,
    INFLUENCE_EMBEDDINGS,
    INFLUENCE_TARGETS,
    RECALL_CURVES,
)


def stale_targets(freshness: Freshness) -> StalePartitions:
    """Return active checkpoints whose targets come from other settings, weights, texts or losses, or from far fewer data.

    With the teacher `subset_losses`, none is before models were retrained: there is nothing to learn from.
    """
    if not freshness.records:
        return {}
    lake, settings = freshness.lake, freshness.settings
    losses = None
    if settings.influcoder.teacher == "subset_losses":
        losses = SubsetTeacher.of(settings, lake).version
        if losses is None:
            return {}
    texts = {
        *lake.read(TRAINING_EXAMPLES, ["shard", "example_id", "content_hash"]).iter_rows(),
        *lake.read(QUERY_EXAMPLES, ["query_set", "query_id", "content_hash"]).iter_rows(),
    }
    corpus_size = lake.read(TRAINING_EXAMPLES, ["shard"]).height
    columns = ["source", "example_id", "content_hash", "corpus_size", "recipe_hash", "weights_hash", "tokenizer_hash"]
    columns += ["losses_from"]
    stale = {}
    for record in freshness.records:
        rows = lake.read(INFLUENCE_TARGETS, columns, checkpoint=record.name)
        reason = _targets_reason(rows, settings, record, texts, corpus_size, losses)
        if reason:
            inputs = [settings.influcoder.targets_hash(settings.recipe), record.weights_hash, record.tokenizer_hash]
            inputs += [losses] if losses else []
            stale[record.name] = Stale(reason, content_hash([*inputs, reason, corpus_size]))
    return stale


def _targets_reason(
    rows: pl.DataFrame,
    settings: Settings,
    record: CheckpointRecord,
    texts: set[tuple[str, ...]],
    corpus_size: int,
    losses: str | None,
) -> str | None:
    if rows.is_empty():
        return MISSING
    if rows["recipe_hash"][0] != settings.influcoder.targets_hash(settings.recipe):
        return "the settings changed"
    if (rows["weights_hash"][0], rows["tokenizer_hash"][0]) != (record.weights_hash, record.tokenizer_hash):
        return "the weights changed"
    if not texts.issuperset(rows.select("source", "example_id", "content_hash").iter_rows()):
        return "a sampled text was edited or removed"
    if corpus_size >= settings.influcoder.growth * rows["corpus_size"][0]:
        return "the data outgrew the sample"
    return "models were retrained" if rows["losses_from"][0] != losses else None


def stale_encoders(freshness: Freshness) -> StalePartitions:
    """Return active checkpoints with targets whose encoder was trained under other settings or on other targets."""
    targets = freshness.stored_versions(INFLUENCE_TARGETS, "checkpoint")
    distillation = freshness.settings.influcoder.distillation_hash(freshness.settings.recipe)
    wanted = {
        record.name: encoder_version(distillation, targets[record.name])
        for record in freshness.records
        if record.name in targets
    }
    rows = freshness.lake.read(INFLUCODER_ENCODERS, ["checkpoint", "computed_from", "base_version"]).rows()
    stored = {checkpoint: version for checkpoint, version, _ in rows}
    # The hub may be asked, which only the encoders that were trained need.
    base_version = encoder_base_version(freshness.settings) if rows else None
    started_otherwise = {
        checkpoint: Stale("the files of `influcoder.encoder` changed", content_hash([wanted[checkpoint], base_version]))
        for checkpoint, _, base in rows
        if checkpoint in wanted and base_version is not None and base not in {None, base_version}
    }
    return {**started_otherwise, **stale_partitions(wanted, stored, "its targets or settings changed")}


def stale_embeddings(freshness: Freshness) -> StalePartitions:
    """Return shards, at checkpoints with an encoder, that were embedded from other data or by another encoder."""
    wanted = {
        f"{checkpoint}|{shard}": embedding_version(weights, shard_hash)
        for checkpoint, weights in freshness.encoders.items()
        for shard, shard_hash in freshness.shard_hashes.items()
    }
    stored = freshness.stored_versions(INFLUENCE_EMBEDDINGS, "checkpoint", "shard")
    return stale_partitions(wanted, stored, "its data or the encoder changed")


def stale_encoder_scores(freshness: Freshness) -> StalePartitions:
    """Return active query sets at checkpoints with an encoder whose scores come from another one, other data or queries."""
    top_k, search = freshness.settings.recipe.top_k, freshness.settings.influcoder.search_hash
    wanted = {
        f"{checkpoint}|{query_set}": encoder_score_version(
            weights, freshness.shard_hashes, query_set_hash, top_k, search
        )
        for checkpoint, weights in freshness.encoders.items()
        for query_set, query_set_hash in freshness.query_set_hashes.items()
    }
    stored = freshness.stored_versions(INFLUCODER_SCORES, "checkpoint", "query_set")
    return stale_partitions(wanted, stored, "the encoder, data or queries changed")


def stale_agreements(freshness: Freshness) -> StalePartitions:
    """Return checkpoints with an encoder whose measured agreement is that of another one, or of other seeds."""
    chosen = freshness.settings.influcoder
    if not chosen.evaluation_seeds:
        return {}
    wanted = {
        checkpoint: content_hash([chosen.agreement_hash, weights]) for checkpoint, weights in freshness.encoders.items()
    }
    stored = freshness.stored_versions(INFLUCODER_AGREEMENT, "checkpoint")
    return stale_partitions(wanted, stored, "the encoder or the seeds changed")


def stale_recall_curves(freshness: Freshness) -> StalePartitions:
    """Return active query sets at checkpoints with an encoder whose curves compare other exact scores or another encoder."""
    if not freshness.settings.influcoder.evaluation_seeds:
        return {}
    encoders = freshness.encoders
    wanted = {
        key: recall_curve_version(version, encoders[checkpoint])
        for key, version in freshness.exact_score_versions.items()
        if (checkpoint := key.partition("|")[0]) in encoders
    }
    stored = freshness.stored_versions(RECALL_CURVES, "checkpoint", "query_set")
    return stale_partitions(wanted, stored, "the exact scores or the encoder changed")
