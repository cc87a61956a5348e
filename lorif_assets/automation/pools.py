"""Dagster's pools: who holds the places that a step would wait for."""

import dagster as dg

from lorif_assets.assets.attribution_asset import AttributionAsset


def pool_holders(instance: dg.DagsterInstance, asset: AttributionAsset) -> str:
    """Return which runs hold all places of an asset's pool, in words; nothing where a place is free."""
    pool, storage = asset.definition.op.pool, instance.event_log_storage
    if pool is None or not storage.supports_global_concurrency_limits:
        return ""
    info = storage.get_concurrency_info(pool)
    if info.limit is None or info.active_slot_count < info.limit:
        return ""
    return " and ".join(f"run {run_id[:8]}" for run_id in sorted(info.active_run_ids))
