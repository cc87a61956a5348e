"""Checks that what is shown is up to date."""

import dagster as dg

from lorif_assets.assets.attribution_report import attribution_report
from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.training_examples import training_examples
from lorif_assets.checks.check_result import check_result
from lorif_assets.config.settings import Settings
from lorif_assets.freshness.view import Freshness
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from resources import inspected_project


@dg.asset_check(
    asset=attribution_report.definition,
    description="Attribution of the active checkpoints is up to date for every active query set, and none lost a file.",
)
def attribution_is_fresh(
    settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake], model_checkpoints: dg.ResourceParam[Checkpoints]
) -> dg.AssetCheckResult:
    """List what is missing or stale on the way to the reports of the active checkpoints."""
    freshness = Freshness.of(inspected_project(settings, lake, model_checkpoints))
    lost = [f"checkpoint {name}: {fault}" for name, fault in freshness.discovered.looked.lost.items()]
    unrecorded = [f"checkpoint {name}: {stale.reason}" for name, stale in checkpoints.stale(freshness).items()]
    data = [f"shard {name}: {stale.reason}" for name, stale in training_examples.stale(freshness).items()]
    reports = [f"report {name}: {stale.reason}" for name, stale in attribution_report.stale(freshness).items()]
    return check_result(
        f"{', '.join(freshness.active_checkpoints)} attributed",
        [*lost, *unrecorded, *data, *reports],
        remedy="switch on re_attribution_sensor, or run `lorif materialize`; put files that a checkpoint lost back",
        severity=dg.AssetCheckSeverity.WARN,
        checkpoints=len(freshness.active_checkpoints),
    )
