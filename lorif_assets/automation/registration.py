"""What was discovered outside, as Dagster's partitions: as many as it advises, those of active checkpoints first."""

from collections.abc import Collection, Sequence

import dagster as dg

from lorif_assets.assets import partitions
from lorif_assets.automation.work import IN_FLIGHT
from lorif_assets.errors import SettingsError
from lorif_assets.freshness.discovery import Discovered
from lorif_assets.freshness.view import Freshness

MOST_PARTITIONS = 100_000
"""Of one asset, as Dagster advises: checkpoints times shards."""


def new_partitions(
    instance: dg.DagsterInstance, discovered: Discovered, active: Collection[str] = ()
) -> list[dg.AddDynamicPartitionsRequest]:
    """Return the requests that add what was discovered, is kept as a partition (`kept_checkpoints`), and is none yet."""
    names_by_definition = (
        (partitions.shards, discovered.shards),
        (partitions.checkpoints, kept_checkpoints(discovered, active)),
        (partitions.query_sets, discovered.query_sets),
        (partitions.layers, discovered.layers),
        (partitions.subsets, discovered.subsets),
    )
    requests = []
    for definition, names in names_by_definition:
        known = set(definition.get_partition_keys(dynamic_partitions_store=instance))
        missing = [name for name in names if name not in known]
        if missing:
            requests.append(definition.build_add_request(missing))
    return requests


def active_names(freshness: Freshness) -> Sequence[str]:
    """Return the active checkpoints; all, where the settings name one that is not there yet, which is said elsewhere."""
    try:
        return freshness.active_checkpoints
    except SettingsError:
        return freshness.discovered.checkpoints


def kept_checkpoints(discovered: Discovered, active: Collection[str]) -> Sequence[str]:
    """Return the checkpoints that are partitions: active ones, and of the others the newest for which there is room."""
    room = MOST_PARTITIONS // max(1, len(discovered.shards)) - len(active)
    others = [name for name in discovered.checkpoints if name not in active]
    left_out = {*others[: max(0, len(others) - max(0, room))]}
    return [name for name in discovered.checkpoints if name not in left_out]


def retired_partitions(
    instance: dg.DagsterInstance, discovered: Discovered, active: Collection[str]
) -> list[dg.DeleteDynamicPartitionsRequest]:
    """Return the request that removes inactive checkpoints from Dagster where there are too many; the lake keeps them.

    One that a run in flight is about stays.
    """
    known = partitions.checkpoints.get_partition_keys(dynamic_partitions_store=instance)
    if len(known) * len(discovered.shards) <= MOST_PARTITIONS:
        return []
    kept = {*kept_checkpoints(discovered, active), *active}
    for run in instance.get_runs(dg.RunsFilter(statuses=IN_FLIGHT)):
        kept |= partitions.checkpoints_in(run.tags, instance) or {run.tags.get(partitions.PARTITION_TAG, "")}
    retired = [name for name in known if name not in kept]
    return [partitions.checkpoints.build_delete_request(retired)] if retired else []


def register(instance: dg.DagsterInstance, discovered: Discovered, active: Collection[str] = ()) -> None:
    """Add what was discovered as partitions."""
    for request in new_partitions(instance, discovered, active):
        partitions.add_partitions(instance, request.partitions_def_name, list(request.partition_keys))
