"""The tables of data: training examples and queries, normalised, and rows that were set aside."""

from collections.abc import Mapping

import pyarrow as pa

from lorif_assets.lake.table_schema import Column, column_type, table

# The content of one example, in whichever of the four formats the source has; the other columns are null.
_CONTENT: Mapping[str, Column] = {
    "format": (pa.string(), "text | prompt_completion | messages | input_ids"),
    "text": (pa.string(), "plain text; the loss is on every token"),
    "prompt": (pa.string(), "carries no loss"),
    "completion": (pa.string(), "the loss is on its tokens"),
    "messages": (
        pa.string(),
        "JSON list of chat messages (role, content); with tools or chat_template_kwargs, an object of these and messages",
    ),
    "input_ids": (pa.list_(pa.int32()), "token ids, used exactly as given"),
    "labels": (pa.list_(pa.int32()), "of `input_ids`; -100 carries no loss; null: the ids themselves"),
    "content_hash": pa.string(),
    "metadata": (pa.string(), "JSON object"),
}
EXAMPLE_CONTENT: Mapping[str, pa.DataType] = {name: column_type(column) for name, column in _CONTENT.items()}

TRAINING_EXAMPLES = table(
    "training_examples",
    ("shard",),
    "A training example, normalised.",
    shard=pa.string(),
    example_id=pa.string(),
    row=(pa.int64(), "position in the source's shard, rejected rows and each sequence of a packed row counted"),
    **_CONTENT,
    shard_hash=pa.string(),
    source_version=(pa.string(), "of the file it was read from: whether to read it again"),
)

KEPT_SHARDS = table(
    "kept_shards",
    ("shard",),
    "A decision that a shard stays in the scores although no source names it any more.",
    shard=pa.string(),
    shard_hash=(pa.string(), "hash of the shard's examples when it was decided: of others, nothing is decided"),
    decided=(pa.string(), "when, in ISO 8601"),
)

QUERY_EXAMPLES = table(
    "query_examples",
    ("query_set",),
    "A query: a prompt and a completion, or a text.",
    query_set=pa.string(),
    query_id=pa.string(),
    row=pa.int64(),
    **_CONTENT,
    query_set_hash=pa.string(),
    source_version=(pa.string(), "of the file it was read from: whether to read it again"),
    objective=(
        pa.string(),
        "JSON: what is asked about by `span`, `against`, `weighted` or `scalar`; null: the loss of what the query says",
    ),
)

REJECTED = table(
    "rejected",
    ("stage", "part"),
    "A row that was set aside, and why.",
    stage=(pa.string(), "the asset that set the row aside"),
    part=(pa.string(), "the partition key of that asset; of `kfac_bases`, the checkpoint"),
    example_id=pa.string(),
    row=pa.int64(),
    reason=(pa.string(), "why it cannot be used"),
    place=(
        pa.string(),
        "the source's file and, counted from 0, the row in it (of a Delta table, the table); null for rows that a tokenizer "
        "set aside, whose shard `part` names",
    ),
    excerpt=(pa.string(), "the beginning of the row, for recognising it"),
)
