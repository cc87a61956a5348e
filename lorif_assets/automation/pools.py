"""Dagster's pools: who holds the places that a step would wait for, and for how long one that is dead does."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import dagster as dg

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.automation.dead_runs import fail_dead_runs, fail_stalled_runs
from lorif_assets.automation.work import GROUP_TAG
from lorif_assets.config.sections import AutomationSettings

_LOOK_SECONDS = 1.0


@contextmanager
def watched_pool(
    instance: dg.DagsterInstance,
    asset: AttributionAsset,
    automation: AutomationSettings,
    announce: Callable[[str], None],
) -> Iterator[None]:
    """Say who holds all places of an asset's pool, and fail those that die while the block waits for one.

    The block waits in Dagster's own order, in which no run that asked later is before it.

    Args:
        instance: Dagster's instance.
        asset: whose steps the block executes.
        automation: when a run without an event is taken for killed.
        announce: called with what is waited for, in words.
    """
    holders = pool_holders(instance, asset)
    if not holders:
        yield
        return
    announce(f"waiting for a place in Dagster's pool {asset.definition.op.pool}, which {holders} holds")
    over = Event()
    watch = Thread(target=_fail_dead_holders, args=(instance, asset, automation, over), daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _fail_dead_holders(
    instance: dg.DagsterInstance, asset: AttributionAsset, automation: AutomationSettings, over: Event
) -> None:
    while not over.wait(_LOOK_SECONDS) and pool_holders(instance, asset):
        fail_dead_runs(instance)
        fail_stalled_runs(instance, automation, GROUP_TAG)


def pool_holders(instance: dg.DagsterInstance, asset: AttributionAsset) -> str:
    """Return which runs hold all places of an asset's pool, in words; nothing where a place is free."""
    pool, storage = asset.definition.op.pool, instance.event_log_storage
    if pool is None or not storage.supports_global_concurrency_limits:
        return ""
    info = storage.get_concurrency_info(pool)
    if info.limit is None or info.active_slot_count < info.limit:
        return ""
    return " and ".join(f"run {run_id[:8]}" for run_id in sorted(info.active_run_ids))
