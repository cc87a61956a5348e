"""Recording a partition in Dagster as soon as its rows are committed, with a data version of its own.

Dagster gives all partitions of a single-run backfill one data version, and records them only when the step ends: a
killed run would lose what it had finished, and staleness would be wrong. A run of many partitions therefore logs a
materialization per partition; a run of one partition returns it in the usual way. Assets that use this declare
`output_required=False`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import (
    CODE_VERSION_TAG,
    DATA_VERSION_IS_USER_PROVIDED_TAG,
    DATA_VERSION_TAG,
    DEFAULT_DATA_VERSION,
    INPUT_DATA_VERSION_TAG_PREFIX,
    INPUT_EVENT_POINTER_TAG_PREFIX,
    NULL_EVENT_POINTER,
)


class PartitionCommits:
    """Records the partitions of one step."""

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context
        self._many = context.has_partition_key_range
        # Taken before anything is read: an upstream change during the step then shows as staleness.
        self._provenance = _provenance_tags(context) if self._many else {}

    def commit(
        self, partition: str, data_version: str, metadata: Mapping[str, Any]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        """Record one partition: yields its result where it is the run's only one, else logs its event."""
        if not self._many:
            yield dg.MaterializeResult(data_version=dg.DataVersion(data_version), metadata=metadata)
            return
        self._context.log_event(
            dg.AssetMaterialization(
                asset_key=self._context.asset_key,
                partition=partition,
                metadata=metadata,
                tags={
                    **self._provenance,
                    DATA_VERSION_TAG: data_version,
                    DATA_VERSION_IS_USER_PROVIDED_TAG: "true",
                    **_dimension_tags(partition),
                },
            )
        )


def _dimension_tags(partition: str) -> dict[str, str]:
    if not isinstance(partition, dg.MultiPartitionKey):
        return {}
    return {f"dagster/partition/{name}": key for name, key in partition.keys_by_dimension.items()}


def _provenance_tags(context: dg.AssetExecutionContext) -> dict[str, str]:
    """Return the code version, and of each upstream asset the newest event: what Dagster derives staleness from."""
    spec = context.assets_def.specs_by_key[context.asset_key]
    tags = {CODE_VERSION_TAG: spec.code_version or context.run_id}
    upstream = [dep.asset_key for dep in spec.deps]
    for key in upstream:
        # What Dagster itself notes of an asset that was never materialized, as those of the other curvature are.
        tags[f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{key.to_user_string()}"] = NULL_EVENT_POINTER
        tags[f"{INPUT_DATA_VERSION_TAG_PREFIX}/{key.to_user_string()}"] = DEFAULT_DATA_VERSION.value
    for record in context.instance.get_asset_records(upstream):
        event = record.asset_entry.last_materialization_record
        if event is None:
            continue
        name = record.asset_entry.asset_key.to_user_string()
        upstream_tags = (event.asset_materialization.tags if event.asset_materialization else None) or {}
        tags[f"{INPUT_EVENT_POINTER_TAG_PREFIX}/{name}"] = str(event.storage_id)
        tags[f"{INPUT_DATA_VERSION_TAG_PREFIX}/{name}"] = upstream_tags.get(DATA_VERSION_TAG, "UNKNOWN")
    return tags
