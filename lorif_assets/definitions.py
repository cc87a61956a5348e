"""The whole project: assets, resources, and what runs by itself."""

import dagster as dg

from lorif_assets.assets.graph import GRAPH
from lorif_assets.automation.jobs import (
    ASSET_JOBS,
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
settings = load_settings()
sensors, schedules = automation_definitions(settings)

defs = dg.Definitions(
    assets=[asset.definition for asset in GRAPH],
    asset_checks=CHECKS,
    jobs=[*ASSET_JOBS.values(), attribute_checkpoint, attribution_checks, re_attribution, vacuum, withdrawal],
    sensors=sensors,
    schedules=schedules,
    resources=dagster_resources(Project.of(settings)),
    executor=dg.multiprocess_executor,
)
