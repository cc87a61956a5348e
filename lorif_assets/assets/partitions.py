"""The dynamic partition sets, the two-dimensional partitions made of them, and how assets' partitions depend."""

from collections.abc import Sequence

import dagster as dg
from sqlalchemy.exc import IntegrityError

_ATTEMPTS = 10

shards = dg.DynamicPartitionsDefinition(name="shards")
checkpoints = dg.DynamicPartitionsDefinition(name="checkpoints")
LAYERS_NAME = "layers"
layers = dg.DynamicPartitionsDefinition(name=LAYERS_NAME)
query_sets = dg.DynamicPartitionsDefinition(name="query_sets")
subsets = dg.DynamicPartitionsDefinition(name="subsets")

CHECKPOINT, SHARD, LAYER, QUERY_SET, SUBSET = "checkpoint", "shard", "layer", "query_set", "subset"

checkpoint_by_shard = dg.MultiPartitionsDefinition({CHECKPOINT: checkpoints, SHARD: shards})
checkpoint_by_layer = dg.MultiPartitionsDefinition({CHECKPOINT: checkpoints, LAYER: layers})
checkpoint_by_query_set = dg.MultiPartitionsDefinition({CHECKPOINT: checkpoints, QUERY_SET: query_sets})


def add_partitions(instance: dg.DagsterInstance, definition: str, names: Sequence[str]) -> None:
    """Add dynamic partitions; those that are there already, or that another process adds at this moment, stay."""
    for attempts_left in reversed(range(_ATTEMPTS)):
        try:
            instance.add_dynamic_partitions(definition, names)
        except IntegrityError:
            # Dagster looks which are there, and then adds the others: another process added one in between.
            if not attempts_left:
                raise
        else:
            return


def same(dimension: str) -> dg.MultiToSingleDimensionPartitionMapping:
    """Map a two-dimensional partition to the one-dimensional partition of the same name."""
    return dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name=dimension)


def whole_checkpoint() -> dg.MultiPartitionMapping:
    """Map a partition of a checkpoint to all of that checkpoint's partitions of the upstream asset."""
    return dg.MultiPartitionMapping(
        {CHECKPOINT: dg.DimensionPartitionMapping(CHECKPOINT, dg.IdentityPartitionMapping())}
    )


def every() -> dg.AllPartitionMapping:
    """Map a partition to all partitions of the upstream asset."""
    return dg.AllPartitionMapping()


def dimensions(definition: dg.PartitionsDefinition[str]) -> tuple[str, ...]:
    """Return the dimensions of a partition key's parts, in their order in the key."""
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return tuple(definition.partition_dimension_names)
    sets = {CHECKPOINT: checkpoints, SHARD: shards, LAYER: layers, QUERY_SET: query_sets, SUBSET: subsets}
    return tuple(name for name, single in sets.items() if single == definition)


def shared_dimensions(
    mapping: dg.PartitionMapping | None,
    upstream: dg.PartitionsDefinition[str],
    downstream: dg.PartitionsDefinition[str],
) -> frozenset[str]:
    """Return the dimensions in which a partition and those that it maps to upstream have the same name.

    Raises:
        TypeError: the mapping is of another kind than those of this module.
    """
    match mapping:
        case None:
            return frozenset(dimensions(upstream))
        case dg.AllPartitionMapping():
            return frozenset()
        case dg.MultiToSingleDimensionPartitionMapping():
            common = {*dimensions(upstream)} & {*dimensions(downstream)}
            return frozenset({mapping.partition_dimension_name} if mapping.partition_dimension_name else common)
        case dg.MultiPartitionMapping():
            return frozenset(mapping.downstream_mappings_by_upstream_dimension)
    raise TypeError(f"the shared dimensions of {mapping!r} are unknown; use a mapping of `assets.partitions`")
