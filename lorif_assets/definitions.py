"""The whole project: assets, resources, and what runs by itself."""

import dagster as dg

from lorif_assets.assets.graph import GRAPH
from lorif_assets.automation.jobs import (
    ASSET_JOBS,
    AssetJobs,
    attribute_checkpoint,
    attribution_checks,
    re_attribution,
    vacuum,
    withdrawal,
)
from lorif_assets.automation.sensors import automation_definitions
from lorif_assets.checks import CHECKS
from lorif_assets.config.settings import load_settings
from lorif_assets.process_environment import set_process_environment
from lorif_assets.project import Project
from resources import dagster_resources

set_process_environment()


def definitions(
    asset_jobs: AssetJobs = ASSET_JOBS, executor: dg.ExecutorDefinition = dg.multiprocess_executor
) -> dg.Definitions:
    """Return the whole graph as lorif.toml says, with these jobs of assets; `executor` is for what is launched otherwise."""
    settings = load_settings()
    sensors, schedules = automation_definitions(settings, asset_jobs)
    return dg.Definitions(
        assets=[asset.definition for asset in GRAPH],
        asset_checks=CHECKS,
        jobs=[*asset_jobs.values(), attribute_checkpoint, attribution_checks, re_attribution, vacuum, withdrawal],
        sensors=sensors,
        schedules=schedules,
        resources=dagster_resources(Project.of(settings)),
        executor=executor,
    )


defs = definitions()
