"""What a person asked for in Dagster's UI, and what of it is up to date already."""

from collections.abc import Callable, Mapping

import dagster as dg
from dagster import DagsterEventType
from dagster._core.storage.tags import BACKFILL_ID_TAG

from lorif_assets.assets.partitions import CHECKPOINT, LAYER, QUERY_SET, SHARD, SUBSET, dimensions
from lorif_assets.errors import LorifError
from lorif_assets.evaluation.query_sets import evaluated_query_sets
from lorif_assets.freshness.stale import StalePartitions
from lorif_assets.freshness.view import Asked, Freshness
from lorif_assets.lake.table_schema import TableSchema
from lorif_assets.project import Project


def assets_asked_for(context: dg.AssetExecutionContext) -> frozenset[dg.AssetKey]:
    """Return all assets that were selected with a run's: those of its backfill, or else of the run itself."""
    run = context.run
    backfill_id = run.tags.get(BACKFILL_ID_TAG)
    backfill = context.instance.get_backfill(backfill_id) if backfill_id else None
    if backfill and backfill.asset_selection:
        return frozenset(backfill.asset_selection)
    return frozenset(run.asset_selection or ())


def up_to_date(
    context: dg.AssetExecutionContext,
    project: Project,
    table: TableSchema,
    find_stale: Callable[[Freshness], StalePartitions],
) -> Mapping[str, dg.AssetMaterialization]:
    """Return the partitions of a backfill's run that need no computing, each with the event that recorded it last.

    Whoever materializes one partition by hand wants it computed, and what `lorif` and the sensor launch is out of date. A
    partition that no event records, or whose last run failed after it was stored, is computed again.

    Args:
        context: of the run.
        project: what is worked on.
        table: that the asset writes.
        find_stale: finds the asset's partitions that are out of date.
    """
    definition = context.assets_def.partitions_def
    if BACKFILL_ID_TAG not in context.run.tags or definition is None:
        return {}
    names = {key: dict(zip(dimensions(definition), key.split("|"), strict=True)) for key in context.partition_keys}
    asked = Asked(
        tuple({one[CHECKPOINT] for one in names.values() if CHECKPOINT in one}),
        tuple({one[QUERY_SET] for one in names.values() if QUERY_SET in one}),
    )
    try:
        freshness = Freshness.of(project, asked)
        stale = find_stale(freshness)
        judged = [
            key
            for key, name in names.items()
            if key not in stale
            and _is_known(freshness, name)
            and not project.lake.read(table, [*name], **name).is_empty()
        ]
    except LorifError as error:
        context.log.info(f"whether partitions are up to date cannot be told: {error}")
        return {}
    events = {key: _recorded(context, key) for key in judged}
    return {key: event for key, event in events.items() if event}


def _is_known(freshness: Freshness, name: Mapping[str, str]) -> bool:
    """Whether a partition, by its names in its dimensions, is one that can be found to be out of date."""
    layers = {record.name: record.layer_shapes.keys() for record in freshness.records}
    discovered = freshness.discovered
    known = {
        CHECKPOINT: freshness.active_checkpoints,
        SHARD: discovered.shards,
        LAYER: layers.get(name.get(CHECKPOINT, ""), ()),
        QUERY_SET: {*freshness.active_query_sets, *evaluated_query_sets(freshness.settings, freshness.lake)},
        SUBSET: discovered.subsets,
    }
    return all(value in known[dimension] for dimension, value in name.items())


def _recorded(context: dg.AssetExecutionContext, partition: str) -> dg.AssetMaterialization | None:
    """Return the newest event that recorded a partition, unless a later run was to record it, and did not."""
    key, instance = context.asset_key, context.instance
    found = instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[partition]), limit=1).records
    if not found:
        return None
    planned = instance.get_event_records(
        dg.EventRecordsFilter(
            DagsterEventType.ASSET_MATERIALIZATION_PLANNED, asset_key=key, asset_partitions=[partition]
        ),
        limit=2,
    )
    later = [one for one in planned if one.run_id != context.run_id and one.storage_id > found[0].storage_id]
    return None if later else found[0].asset_materialization
