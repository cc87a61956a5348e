"""Checks of whether what is shown is of now."""

import dagster as dg

from lorif_assets.assets.attribution_report import attribution_report
from lorif_assets.checks.check_result import check_result
from lorif_assets.config.settings import Settings
from lorif_assets.freshness.discovery import discover
from lorif_assets.freshness.staleness import Staleness
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints


@dg.asset_check(
    asset=attribution_report,
    description="The active checkpoints are attributed for every active query set, from what is there now.",
)
def attribution_is_fresh(
    settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake], model_checkpoints: dg.ResourceParam[Checkpoints]
) -> dg.AssetCheckResult:
    """List what is missing or stale on the way to the reports of the active checkpoints."""
    staleness = Staleness(settings, lake, model_checkpoints, discover(settings, model_checkpoints, lake))
    unrecorded = [f"checkpoint {name}: {stale.reason}" for name, stale in staleness.checkpoints().items()]
    data = [f"shard {name}: {stale.reason}" for name, stale in staleness.training_examples().items()]
    reports = [f"report {name}: {stale.reason}" for name, stale in staleness.attribution_report().items()]
    return check_result(
        f"{', '.join(staleness.active_checkpoints)} attributed",
        [*unrecorded, *data, *reports],
        remedy="switch on re_attribution_sensor, or run `lorif materialize`",
        severity=dg.AssetCheckSeverity.WARN,
        checkpoints=len(staleness.active_checkpoints),
    )
