"""What a Delta table of the lake looks like, and what its columns mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import pyarrow as pa

Column: TypeAlias = pa.DataType | tuple[pa.DataType, str]
"""A column's type; with what it means, where that differs from table to table."""

# Columns that mean the same in every table.
_MEANINGS: Mapping[str, str] = {
    "checkpoint": "name of the checkpoint",
    "shard": "name of the shard of training data",
    "query_set": "name of the query set",
    "layer": "module path of the layer",
    "example_id": "id of the training example",
    "query_id": "id of the query",
    "row": "position in the file or shard that it was read from, rejected rows and sequences of a packed row counted",
    "d1": "projected width of the layer's input",
    "d2": "projected width of the layer's output",
    "token_id": "id of the token",
    "uri": "where it is",
    "n_examples": "number of training examples",
    "score": "influence of the example on the query; larger: the example speaks more for the completion",
    "teacher": "what was distilled: gradient_cosine | lorif | subset_losses",
    "encoder_hash": "hash of the encoder's weights",
    "trace": "sum of all eigenvalues",
    "damping": "what is added to every eigenvalue",
    "loss": "summed over the target tokens, nats",
    "n_target_tokens": "tokens that carry loss",
    "method": "name of the method",
    "seconds": "that it took to compute",
    "content_hash": "hash of the content",
    "shard_hash": "hash of the shard's examples",
    "query_set_hash": "hash of the query set's queries",
    "weights_hash": "hash of the checkpoint's weights",
    "tokenizer_hash": "hash of the checkpoint's tokenizer",
    "projection": "fingerprint of the projections",
    "bases": "fingerprint of the K-FAC bases",
    "recipe_hash": "hash of the settings that the row depends on",
    "ledger_hash": "hash of the ledger",
    "computed_from": "hash of everything that the row was computed from",
}


@dataclass(frozen=True)
class TableSchema:
    """Columns and partition columns of one Delta table.

    `open_columns` is the type of further columns that a table may have (one per layer), or None for a closed table.
    `row` is a sentence on what one row is; `meanings` explains the columns whose names do not say enough.
    """

    name: str
    partition_by: tuple[str, ...]
    columns: pa.Schema
    open_columns: pa.DataType | None = None
    row: str = field(default="", compare=False)
    meanings: Mapping[str, str] = field(default_factory=dict, compare=False)


def column_type(column: Column) -> pa.DataType:
    """Return the type of a column."""
    return column[0] if isinstance(column, tuple) else column


def table(
    name: str,
    partition_by: tuple[str, ...],
    row: str,
    open_columns: pa.DataType | None = None,
    /,
    **columns: Column,
) -> TableSchema:
    """Return a table of nullable columns, in this order, each a type or a type and what the column means.

    Args:
        name: of the table.
        partition_by: names of its partition columns.
        row: a sentence on what one row is.
        open_columns: type of further columns that the table may have, or None.
        columns: types by name.
    """
    own = {key: column[1] for key, column in columns.items() if isinstance(column, tuple)}
    shared = {key: _MEANINGS[key] for key in columns if key in _MEANINGS}
    schema = pa.schema([pa.field(key, column_type(column)) for key, column in columns.items()])
    return TableSchema(name, partition_by, schema, open_columns, row, {**shared, **own})
