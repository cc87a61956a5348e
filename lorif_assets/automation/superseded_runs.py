"""Old runs in Dagster's records that nothing rests on any more; its event log would grow with each update without end.

A run stays, however old, that made the newest materialization of a partition, or that evaluated a check last: without its
events the partition would count as never made. Of partitions that Dagster has no more, as those of checkpoints for which
there is no room, none stays: pages would go through them.
"""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

import dagster as dg
from dagster import DagsterEventType, DagsterRunStatus, RunsFilter

from lorif_assets.assets.attribution_asset import AttributionAsset

_FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
_AT_A_TIME = 500


def superseded_runs(
    instance: dg.DagsterInstance,
    assets: Sequence[AttributionAsset],
    checks: Collection[dg.AssetCheckKey],
    before: datetime,
) -> list[str]:
    """Return the ids of runs that ended before a time, and of which Dagster shows nothing as the newest."""
    old = instance.get_run_records(RunsFilter(statuses=_FINISHED, updated_before=before))
    if not old:
        return []
    newest = {run for asset in assets for run in _runs_of_newest(instance, asset)}
    executions = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(checks))
    newest |= {execution.run_id for execution in executions.values()}
    return [record.dagster_run.run_id for record in old if record.dagster_run.run_id not in newest]


def delete_runs(instance: dg.DagsterInstance, run_ids: Collection[str]) -> None:
    """Delete runs with their events."""
    for run_id in run_ids:
        instance.delete_run(run_id)


def _runs_of_newest(instance: dg.DagsterInstance, asset: AttributionAsset) -> Iterator[str]:
    """Yield the runs of the newest materialization of an asset and of each partition that it has now."""
    key = asset.key
    event = instance.get_latest_materialization_event(key)
    if event is not None:
        yield event.run_id
    kind = DagsterEventType.ASSET_MATERIALIZATION
    known = {*asset.partitions.get_partition_keys(dynamic_partitions_store=instance)}
    made = instance.get_latest_storage_id_by_partition(key, kind)
    ids = sorted(storage_id for partition, storage_id in made.items() if partition in known)
    for first in range(0, len(ids), _AT_A_TIME):
        some = dg.AssetRecordsFilter(key, storage_ids=ids[first : first + _AT_A_TIME])
        for record in instance.fetch_materializations(some, limit=_AT_A_TIME).records:
            yield record.run_id
