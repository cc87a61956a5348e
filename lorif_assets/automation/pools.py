"""Dagster's pools: who holds the places that a step would wait for, and for how long one that is dead does."""

import time
from collections.abc import Callable

import dagster as dg

from lorif_assets.assets.attribution_asset import AttributionAsset
from lorif_assets.automation.dead_runs import fail_dead_runs, fail_stalled_runs
from lorif_assets.automation.work import GROUP_TAG
from lorif_assets.config.sections import AutomationSettings

_LOOK_SECONDS = 1.0


def await_place(
    instance: dg.DagsterInstance,
    asset: AttributionAsset,
    automation: AutomationSettings,
    announce: Callable[[str], None],
) -> None:
    """Wait for a place in an asset's pool; one that a run holds that is killed meanwhile becomes free too.

    Args:
        instance: Dagster's instance.
        asset: whose steps are to be executed.
        automation: when a run without an event is taken for killed.
        announce: called with who holds the places, in words, where there is none.
    """
    said = ""
    while holders := pool_holders(instance, asset):
        if holders != said:
            announce(f"waiting for a place in Dagster's pool {asset.definition.op.pool}, which {holders} holds")
            said = holders
        time.sleep(_LOOK_SECONDS)
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
