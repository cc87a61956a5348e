"""The dynamic partition sets, the two-dimensional partitions made of them, and how assets' partitions depend."""

from collections.abc import Mapping, Sequence

import dagster as dg
from sqlalchemy.exc import IntegrityError

_ATTEMPTS = 10

shards = dg.DynamicPartitionsDefinition(name="shards")
CHECKPOINTS_NAME = "checkpoints"
checkpoints = dg.DynamicPartitionsDefinition(name=CHECKPOINTS_NAME)
LAYERS_NAME = "layers"
layers = dg.DynamicPartitionsDefinition(name=LAYERS_NAME)
query_sets = dg.DynamicPartitionsDefinition(name="query_sets")
subsets = dg.DynamicPartitionsDefinition(name="subsets")

CHECKPOINT, SHARD, LAYER, QUERY_SET, SUBSET = "checkpoint", "shard", "layer", "query_set", "subset"

PARTITION_TAG = "dagster/partition"
RANGE_START_TAG, RANGE_END_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
"""Dagster's tags of a run that name its partition, or the first and the last of its range."""


class _OfCheckpoints(dg.MultiPartitionsDefinition):
    """Partitions of two dimensions, among whose keys Dagster finds the valid ones in a tenth of the time.

    It asks whenever it counts the states of partitions, for each key that was ever materialized, and makes objects of them all.
    """

    def filter_valid_partition_keys(self, partition_keys: set[str]) -> set[str]:  # type: ignore[override]
        """Return those of the keys that are partitions; plain strings, as Dagster has them too where it kept them."""
        first, last = (dimension.partitions_def for dimension in self.partitions_defs)
        firsts = first.filter_valid_partition_keys({key.partition("|")[0] for key in partition_keys})
        lasts = last.filter_valid_partition_keys({key.partition("|")[2] for key in partition_keys})
        # Neither name has the separator in it: a key with more of them is none of theirs.
        return {key for key in partition_keys if key.partition("|")[0] in firsts and key.partition("|")[2] in lasts}


checkpoint_by_shard = _OfCheckpoints({CHECKPOINT: checkpoints, SHARD: shards})
checkpoint_by_layer = _OfCheckpoints({CHECKPOINT: checkpoints, LAYER: layers})
checkpoint_by_query_set = _OfCheckpoints({CHECKPOINT: checkpoints, QUERY_SET: query_sets})


def checkpoints_in(tags: Mapping[str, str], instance: dg.DagsterInstance) -> set[str] | None:
    """Return the checkpoints of a run's two-dimensional partitions, from its tags; None for a run without partitions."""
    first, last = (
        tags.get(tag, tags.get(PARTITION_TAG, "")).partition("|")[0] for tag in (RANGE_START_TAG, RANGE_END_TAG)
    )
    names = instance.get_dynamic_partitions(CHECKPOINTS_NAME)
    if first not in names or last not in names:
        return None
    return {*names[names.index(first) : names.index(last) + 1]}


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
