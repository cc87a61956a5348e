"""The whole project: assets, resources, and what runs by itself."""

import dagster as dg

from lorif_assets.assets.graph import ASSETS, EVALUATION
from lorif_assets.automation import (
    ASSET_JOBS,
    attribution_checks,
    automation_definitions,
    re_attribution,
    vacuum,
    withdrawal,
)
from lorif_assets.checks import CHECKS
from lorif_assets.project_resources import project_resources
from lorif_assets.settings import load_settings

settings = load_settings()
sensors, schedules = automation_definitions(settings)

defs = dg.Definitions(
    assets=[*ASSETS, *EVALUATION],
    asset_checks=CHECKS,
    jobs=[*ASSET_JOBS.values(), attribution_checks, re_attribution, vacuum, withdrawal],
    sensors=sensors,
    schedules=schedules,
    resources=project_resources(settings),
    executor=dg.multiprocess_executor,
)
