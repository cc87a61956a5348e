"""The dynamic partition sets, the two-dimensional partitions made of them, and how assets' partitions depend."""

from collections.abc import Iterable, Mapping

import dagster as dg

shards = dg.DynamicPartitionsDefinition(name="shards")
checkpoints = dg.DynamicPartitionsDefinition(name="checkpoints")
LAYERS_NAME = "layers"
layers = dg.DynamicPartitionsDefinition(name=LAYERS_NAME)
query_sets = dg.DynamicPartitionsDefinition(name="query_sets")
subsets = dg.DynamicPartitionsDefinition(name="subsets")

CHECKPOINT, SHARD, LAYER, QUERY_SET = "checkpoint", "shard", "layer", "query_set"

checkpoint_by_shard = dg.MultiPartitionsDefinition({CHECKPOINT: checkpoints, SHARD: shards})
checkpoint_by_layer = dg.MultiPartitionsDefinition({CHECKPOINT: checkpoints, LAYER: layers})
checkpoint_by_query_set = dg.MultiPartitionsDefinition({CHECKPOINT: checkpoints, QUERY_SET: query_sets})


def same(dimension: str) -> dg.MultiToSingleDimensionPartitionMapping:
    """Map a two-dimensional partition to the one-dimensional partition of the same name."""
    return dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name=dimension)


def whole_checkpoint() -> dg.MultiPartitionMapping:
    """Map a partition of a checkpoint to all of that checkpoint's partitions of the upstream asset."""
    return dg.MultiPartitionMapping(
        {CHECKPOINT: dg.DimensionPartitionMapping(CHECKPOINT, dg.IdentityPartitionMapping())}
    )


def by_checkpoint(keys: Iterable[str], dimension: str) -> Mapping[str, Mapping[str, str]]:
    """Return the run's two-dimensional keys as checkpoint -> {name in the other dimension: partition key}."""
    grouped: dict[str, dict[str, str]] = {}
    for key in keys:
        if not isinstance(key, dg.MultiPartitionKey):
            raise TypeError(f"expected a partition with the dimensions {CHECKPOINT} and {dimension}, found {key!r}")
        names = key.keys_by_dimension
        grouped.setdefault(names[CHECKPOINT], {})[names[dimension]] = key
    return grouped
