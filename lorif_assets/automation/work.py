"""What to run next so that everything active is up to date again: decided from the lake's state, not from events."""

import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.automation.run_tags import run_tags
from lorif_assets.config.content_hash import content_hash
from lorif_assets.config.sections import AutomationSettings
from lorif_assets.freshness.stale import Stale, StalePartitions

GROUP_TAG = "lorif/group"
WORK_TAG = "lorif/work"
IN_FLIGHT = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


MOST_PARTITIONS = 1_000
"""Of one run that the sensor launches. Dagster stores an event for each before a run begins, some 10 ms on SQLite, and its
daemon evaluates no sensor in the meantime."""


@dataclass(frozen=True)
class Work:
    """Partitions of one asset to compute in one run; `group` is the asset and checkpoint, of which one run is in flight."""

    asset: str
    group: str
    partitions: tuple[str, ...]
    version: str
    """Hash of the partitions, of what they should become and of the settings that it is tried under: the same work has the
    same version."""

    @property
    def tags(self) -> dict[str, str]:
        """The run's tags."""
        return {GROUP_TAG: self.group, WORK_TAG: self.version, **run_tags(self.partitions)}


def work_to_do(
    partitions_by_asset: Iterable[tuple[str, StalePartitions]],
    assets: Sequence[AttributionAsset],
    instance: dg.DagsterInstance,
    automation: AutomationSettings,
    tried_under: str = "",
) -> Iterator[Work]:
    """Yield the runs to launch, but none of a group that has a run in flight, and none that failed too often or too recently.

    Args:
        partitions_by_asset: each asset's name, with its stale partitions that can be computed.
        assets: the graph.
        instance: Dagster's instance.
        automation: how often, and after which wait, work that failed is tried again.
        tried_under: hash of the settings; under others, what failed is tried anew.
    """
    by_name = {asset.name: asset for asset in assets}
    busy = {run.tags[GROUP_TAG] for run in instance.get_runs(RunsFilter(statuses=IN_FLIGHT)) if GROUP_TAG in run.tags}
    for name, stale in partitions_by_asset:
        for stretch in stretches(by_name[name], stale, instance, limit=MOST_PARTITIONS):
            work = _work(name, stretch, stale, tried_under)
            if work.group in busy or not _may_try(instance, work, automation):
                continue
            busy.add(work.group)
            yield work


def given_up(
    instance: dg.DagsterInstance,
    automation: AutomationSettings,
    asset: AttributionAsset,
    stale: StalePartitions,
    tried_under: str = "",
) -> set[str]:
    """Return the stale partitions of an asset that failed as often as the settings allow, and are tried no more under them."""
    return {
        key
        for stretch in stretches(asset, stale, instance, limit=MOST_PARTITIONS)
        if len(_failures(instance, _work(asset.name, stretch, stale, tried_under), automation))
        >= automation.max_attempts
        for key in stretch
    }


def stretches(
    asset: AttributionAsset, stale: Collection[str], instance: dg.DagsterInstance, *, limit: int = sys.maxsize
) -> Iterator[Sequence[str]]:
    """Cut stale partitions into runs: neighbours of one checkpoint, at most `limit`, or one if the asset takes no more."""
    if not stale:
        return
    if asset.definition.backfill_policy is None:
        yield from ([key] for key in stale)
        return
    stretch: list[str] = []
    for key in asset.partitions.get_partition_keys(dynamic_partitions_store=instance):
        # A range of two dimensions is a rectangle: one that stays within a checkpoint is what it seems.
        if stretch and (key not in stale or len(stretch) == limit or _checkpoint(key) != _checkpoint(stretch[-1])):
            yield stretch
            stretch = []
        if key in stale:
            stretch.append(key)
    if stretch:
        yield stretch


def _work(asset: str, stretch: Sequence[str], stale: StalePartitions, tried_under: str) -> Work:
    versions: list[tuple[str, Stale]] = [(key, stale[key]) for key in stretch]
    checkpoint = _checkpoint(stretch[0])
    return Work(
        asset=asset,
        group=f"{asset} {checkpoint}".strip(),
        partitions=tuple(stretch),
        version=content_hash([asset, [[key, partition.version] for key, partition in versions], tried_under]),
    )


def _may_try(instance: dg.DagsterInstance, work: Work, automation: AutomationSettings) -> bool:
    failed = _failures(instance, work, automation)
    if not failed:
        return True
    wait = automation.backoff_seconds * 2 ** (len(failed) - 1)
    # After a clock was set back, a failure may lie ahead.
    is_waiting = 0 <= time.time() - (failed[0].end_time or 0) < wait
    return len(failed) < automation.max_attempts and not is_waiting


def _failures(instance: dg.DagsterInstance, work: Work, automation: AutomationSettings) -> Sequence[dg.RunRecord]:
    """Return the runs of the work that failed, the newest first."""
    return instance.get_run_records(
        RunsFilter(tags={WORK_TAG: work.version}, statuses=[DagsterRunStatus.FAILURE]), limit=automation.max_attempts
    )


def _checkpoint(key: str) -> str:
    """Return the checkpoint of a two-dimensional partition key, or nothing for a key of one dimension."""
    checkpoint, separator, _ = key.partition("|")
    return checkpoint if separator else ""
