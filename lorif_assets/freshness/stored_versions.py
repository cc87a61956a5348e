"""The data version of every stored partition, as its asset gives it to Dagster when it commits: to compare the records."""

import json
from collections.abc import Callable, Mapping

from lorif_assets.attribution.checkpoints.compared import compared_versions
from lorif_assets.attribution.stored.factors import stored_factor_versions
from lorif_assets.attribution.stored.versions import checkpoint_version, refined_version
from lorif_assets.lake.attribution_tables import (
    CHECKPOINT_COMPARISONS,
    CHECKPOINTS,
    GRADIENT_FACTORS,
    KFAC_BASES,
    PRECONDITIONER_TABLES,
)
from lorif_assets.lake.data_tables import QUERY_EXAMPLES, TRAINING_EXAMPLES
from lorif_assets.lake.file_constants import file_constants
from lorif_assets.lake.influcoder_tables import INFLUCODER_ENCODERS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema


def stored_versions(lake: Lake, schema: TableSchema) -> Mapping[str, str]:
    """Return by partition key the data version of what a table holds.

    Raises:
        TableError: the table cannot be read.
    """
    if schema.name in _SPECIAL:
        return _SPECIAL[schema.name](lake)
    return values_by_partition(lake, schema, *schema.partition_by)


def values_by_partition(
    lake: Lake, schema: TableSchema, *dimensions: str, column: str = "computed_from"
) -> Mapping[str, str]:
    """Return a text column of a table, by default the version, by partition key, which is made of the columns `dimensions`."""
    rows = file_constants(lake, schema, [*dimensions, column])
    return {"|".join(names): value for *names, value in rows.iter_rows()}


def _checkpoints(lake: Lake) -> Mapping[str, str]:
    rows = lake.read(CHECKPOINTS, ["checkpoint", "weights_hash", "tokenizer_hash", "layers"])
    return {
        checkpoint: checkpoint_version(weights, tokenizer, json.loads(layers))
        for checkpoint, weights, tokenizer, layers in rows.iter_rows()
    }


def _factors(lake: Lake) -> Mapping[str, str]:
    return {
        f"{checkpoint}|{shard}": version
        for checkpoint in file_constants(lake, GRADIENT_FACTORS, ["checkpoint"])["checkpoint"]
        for shard, version in stored_factor_versions(lake, checkpoint).items()
    }


def _preconditioners(schema: TableSchema) -> Callable[[Lake], Mapping[str, str]]:
    has_basis = "basis_version" in schema.columns.names

    def versions(lake: Lake) -> Mapping[str, str]:
        columns = ["checkpoint", "layer", "version", *(["basis_version"] if has_basis else [])]
        return {
            f"{checkpoint}|{layer}": refined_version(version, *basis)
            for checkpoint, layer, version, *basis in lake.read(schema, columns).iter_rows()
        }

    return versions


_SPECIAL: Mapping[str, Callable[[Lake], Mapping[str, str]]] = {
    TRAINING_EXAMPLES.name: lambda lake: values_by_partition(lake, TRAINING_EXAMPLES, "shard", column="shard_hash"),
    QUERY_EXAMPLES.name: lambda lake: values_by_partition(lake, QUERY_EXAMPLES, "query_set", column="query_set_hash"),
    CHECKPOINTS.name: _checkpoints,
    KFAC_BASES.name: lambda lake: values_by_partition(lake, KFAC_BASES, "checkpoint", "layer", column="fingerprint"),
    GRADIENT_FACTORS.name: _factors,
    **{schema.name: _preconditioners(schema) for schema in PRECONDITIONER_TABLES},
    CHECKPOINT_COMPARISONS.name: compared_versions,
    INFLUCODER_ENCODERS.name: lambda lake: values_by_partition(
        lake, INFLUCODER_ENCODERS, "checkpoint", column="encoder_hash"
    ),
}
