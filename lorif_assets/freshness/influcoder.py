"""Which of Influcoder's partitions are missing or out of date.

Targets keep their sample while its texts are there as they were, so that new data is embedded and nothing is trained.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from lorif_assets.attribution.model import CheckpointRecord
from lorif_assets.attribution.versions import (
    embedding_version,
    encoder_score_version,
    encoder_version,
    recall_curve_version,
)
from lorif_assets.config.influcoder import InflucoderSettings
from lorif_assets.config.recipe import Recipe, content_hash
from lorif_assets.config.settings import Settings
from lorif_assets.freshness.stale import MISSING, Stale, StalePartitions, differing
from lorif_assets.influcoder.stored import encoder_weights
from lorif_assets.lake.attribution_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.influcoder_tables import (
    INFLUCODER_AGREEMENT,
    INFLUCODER_ENCODERS,
    INFLUCODER_SCORES,
    INFLUENCE_EMBEDDINGS,
    INFLUENCE_TARGETS,
    RECALL_CURVES,
)
from lorif_assets.lake.lake import Lake


def targets_out_of_date(lake: Lake, settings: Settings, records: Sequence[CheckpointRecord]) -> StalePartitions:
    """Return checkpoints whose targets must be computed anew: other settings or weights, texts edited, data grown."""
    if not records:
        return {}
    present = {
        *lake.read(TRAINING_EXAMPLES, ["shard", "example_id", "content_hash"]).iter_rows(),
        *lake.read(QUERY_EXAMPLES, ["query_set", "query_id", "content_hash"]).iter_rows(),
    }
    corpus = lake.read(TRAINING_EXAMPLES, ["shard"]).height
    columns = ["source", "example_id", "content_hash", "corpus_size", "recipe_hash", "weights_hash", "tokenizer_hash"]
    stale = {}
    for record in records:
        rows = lake.read(INFLUENCE_TARGETS, columns, checkpoint=record.name)
        reason = _targets_reason(rows, settings, record, present, corpus)
        if reason:
            inputs = [settings.influcoder.targets_hash(settings.recipe), record.weights_hash, record.tokenizer_hash]
            stale[record.name] = Stale(reason, content_hash([*inputs, reason, corpus]))
    return stale


def _targets_reason(
    rows: pl.DataFrame,
    settings: Settings,
    record: CheckpointRecord,
    present: set[tuple[str, ...]],
    corpus: int,
) -> str | None:
    if rows.is_empty():
        return MISSING
    if rows["recipe_hash"][0] != settings.influcoder.targets_hash(settings.recipe):
        return "the settings changed"
    if (rows["weights_hash"][0], rows["tokenizer_hash"][0]) != (record.weights_hash, record.tokenizer_hash):
        return "the weights changed"
    if not present.issuperset(rows.select("source", "example_id", "content_hash").iter_rows()):
        return "a sampled text was edited or removed"
    if corpus >= settings.influcoder.growth * rows["corpus_size"][0]:
        return "the data outgrew the sample"
    return None


def encoders_out_of_date(lake: Lake, settings: Settings, records: Sequence[CheckpointRecord]) -> StalePartitions:
    """Return checkpoints with targets whose encoder was trained under other settings or on other targets."""
    stored = dict(lake.read(INFLUCODER_ENCODERS, ["checkpoint", "computed_from"]).iter_rows())
    return differing(
        wanted_encoders(lake, settings.influcoder, settings.recipe, records), stored, "its targets or settings changed"
    )


def wanted_encoders(
    lake: Lake, settings: InflucoderSettings, recipe: Recipe, records: Sequence[CheckpointRecord]
) -> Mapping[str, str]:
    """Return the version of the encoder that each checkpoint with targets should have."""
    targets = dict(lake.read(INFLUENCE_TARGETS, ["checkpoint", "computed_from"]).unique().iter_rows())
    distillation = settings.distillation_hash(recipe)
    return {
        record.name: encoder_version(distillation, targets[record.name]) for record in records if record.name in targets
    }


def embeddings_out_of_date(
    lake: Lake, records: Sequence[CheckpointRecord], shard_hashes: Mapping[str, str]
) -> StalePartitions:
    """Return shards of checkpoints with an encoder whose data or encoder is not what they were embedded from."""
    encoders = encoder_weights(lake, records)
    wanted = {
        f"{checkpoint}|{shard}": embedding_version(weights, shard_hash)
        for checkpoint, weights in encoders.items()
        for shard, shard_hash in shard_hashes.items()
    }
    rows = lake.read(INFLUENCE_EMBEDDINGS, ["checkpoint", "shard", "computed_from"], checkpoint=list(encoders)).unique()
    stored = {f"{checkpoint}|{shard}": version for checkpoint, shard, version in rows.iter_rows()}
    return differing(wanted, stored, "its data or the encoder changed")


def encoder_scores_out_of_date(
    lake: Lake,
    settings: Settings,
    records: Sequence[CheckpointRecord],
    shard_hashes: Mapping[str, str],
    query_set_hashes: Mapping[str, str],
) -> StalePartitions:
    """Return query sets at checkpoints with an encoder whose scores come from another one, other data or queries."""
    wanted = {
        f"{checkpoint}|{query_set}": encoder_score_version(
            weights, shard_hashes, query_set_hash, settings.recipe.top_k, settings.influcoder.search_hash
        )
        for checkpoint, weights in encoder_weights(lake, records).items()
        for query_set, query_set_hash in query_set_hashes.items()
    }
    rows = lake.read(INFLUCODER_SCORES, ["checkpoint", "query_set", "computed_from"]).unique()
    stored = {f"{checkpoint}|{query_set}": version for checkpoint, query_set, version in rows.iter_rows()}
    return differing(wanted, stored, "the encoder, data or queries changed")


def agreements_out_of_date(lake: Lake, settings: Settings, records: Sequence[CheckpointRecord]) -> StalePartitions:
    """Return checkpoints with an encoder whose measured agreement is that of another one, or of other seeds."""
    wanted = {
        checkpoint: content_hash([settings.influcoder.agreement_hash, weights])
        for checkpoint, weights in encoder_weights(lake, records).items()
    }
    stored = dict(lake.read(INFLUCODER_AGREEMENT, ["checkpoint", "computed_from"]).unique().iter_rows())
    return differing(wanted, stored, "the encoder or the seeds changed")


def recall_curves_out_of_date(
    lake: Lake, scores: Mapping[str, str], records: Sequence[CheckpointRecord]
) -> StalePartitions:
    """Return query sets at checkpoints with an encoder whose curves compare other scores than those of now.

    Args:
        lake: where the curves are.
        scores: version of the exact scores by partition.
        records: of the checkpoints.
    """
    encoders = encoder_weights(lake, records)
    wanted = {
        key: recall_curve_version(version, encoders[key.partition("|")[0]])
        for key, version in scores.items()
        if key.partition("|")[0] in encoders
    }
    rows = lake.read(RECALL_CURVES, ["checkpoint", "query_set", "computed_from"]).unique()
    stored = {f"{checkpoint}|{query_set}": version for checkpoint, query_set, version in rows.iter_rows()}
    return differing(wanted, stored, "the exact scores or the encoder changed")
