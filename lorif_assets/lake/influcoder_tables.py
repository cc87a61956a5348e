"""The tables of Influcoder: targets, encoders, embeddings, and the scores that its encoder gives."""

from dataclasses import replace

import pyarrow as pa

from lorif_assets.lake.attribution_tables import QUERY_SCORES
from lorif_assets.lake.table_schema import table

INFLUENCE_TARGETS = table(
    "influence_targets",
    ("checkpoint",),
    "A sampled text; for an anchor, the influence of each pool text on it.",
    checkpoint=pa.string(),
    role=(pa.string(), "anchor | pool"),
    split=(pa.string(), "distil | held_out"),
    position=(pa.int32(), "among the texts of its role"),
    source=(pa.string(), "query set or shard"),
    example_id=pa.string(),
    content_hash=pa.string(),
    text=(pa.string(), "as the encoder reads it"),
    targets=(pa.list_(pa.float32()), "of an anchor: the influence of each pool text, by position; else null"),
    teacher=pa.string(),
    corpus_size=(pa.int64(), "examples that the sample was drawn from"),
    seconds=(pa.float64(), "that the gradients took"),
    recipe_hash=pa.string(),
    weights_hash=pa.string(),
    tokenizer_hash=pa.string(),
    computed_from=pa.string(),
    losses_from=(pa.string(), "hash of the subset losses that the targets come from; null under another teacher"),
)

INFLUCODER_ENCODERS = table(
    "influcoder_encoders",
    ("checkpoint",),
    "Where a trained encoder is (`encoders/`), and the hash of its weights.",
    checkpoint=pa.string(),
    uri=(pa.string(), "ZIP file of a sentence-transformers model, relative to the lake root"),
    base=(pa.string(), "the setting `encoder` that its training first started from"),
    started_from=(pa.string(), "the checkpoint whose encoder its training went on from, or null"),
    width=(pa.int32(), "numbers of an embedding"),
    encoder_hash=(pa.string(), "of the weights"),
    steps=(pa.int32(), "training steps"),
    final_loss=(pa.float64(), "mean over the last epoch"),
    seconds=pa.float64(),
    recipe_hash=pa.string(),
    computed_from=pa.string(),
    base_version=(
        pa.string(),
        "hash of what `base` names: samples of a folder's files, or the hub's hashes of them; null where it was not recorded",
    ),
)

INFLUENCE_EMBEDDINGS = table(
    "influence_embeddings",
    ("checkpoint", "shard"),
    "A training example's vector.",
    checkpoint=pa.string(),
    shard=pa.string(),
    example_id=pa.string(),
    row=pa.int64(),
    content_hash=pa.string(),
    embedding=(pa.list_(pa.float32()), "unit norm"),
    encoder_hash=pa.string(),
    shard_hash=pa.string(),
    computed_from=pa.string(),
)

INFLUCODER_SCORES = replace(
    QUERY_SCORES,
    name="influcoder_scores",
    row="A proponent or opponent of a query by the encoder, in the columns of `query_scores`; none has a relative score.",
)

INFLUCODER_AGREEMENT = table(
    "influcoder_agreement",
    ("checkpoint",),
    "How far an encoder of one seed agrees with its teacher, its set-up time and its time per text.",
    checkpoint=pa.string(),
    encoder=(pa.string(), "served: the stored one | trained: of a seed | untrained: the control"),
    seed=(pa.int64(), "of split and training"),
    per_anchor=(pa.float64(), "mean Spearman correlation along the held-out pool"),
    aggregated=(pa.float64(), "Spearman correlation of the held-out pool's means over anchors"),
    ndcg_at_20=(pa.float64(), "mean NDCG@20 along the held-out pool; null where it was not measured"),
    anchors=(pa.int32(), "held-out anchors"),
    pool=(pa.int32(), "held-out training examples"),
    teacher=pa.string(),
    teacher_seconds=(pa.float64(), "of the gradients: set-up"),
    training_seconds=(pa.float64(), "of the distillation: set-up"),
    milliseconds_per_text=(pa.float64(), "of an embedding, after a warm-up"),
    recipe_hash=pa.string(),
    computed_from=pa.string(),
)

RECALL_CURVES = table(
    "recall_curves",
    ("checkpoint", "query_set"),
    "Recall, bytes and time for a number of proposed candidates.",
    checkpoint=pa.string(),
    query_set=pa.string(),
    k=(pa.int32(), "of the exact leading examples"),
    candidates=(pa.int64(), "n: proposed by the encoder for each query"),
    n_examples=pa.int64(),
    recall=(pa.float64(), "share of the exact top k among the n proposed, mean over queries"),
    random_recall=(pa.float64(), "n / n_examples"),
    bytes_read=(pa.int64(), "of factors, for all queries"),
    bytes_full_scan=(pa.int64(), "of a scan of all factors"),
    seconds=pa.float64(),
    seconds_full_scan=(pa.float64(), "of a scan of all factors"),
    recipe_hash=pa.string(),
    computed_from=pa.string(),
)
