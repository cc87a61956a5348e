"""The same graph with each step as a Ray job of its own: `dagster dev -m deploy.ray.definitions`.

Not needed for `compute.engine = "ray"`, under which a step has workers on the cluster wherever it runs itself. It moves the
steps' own processes there too.
"""

import dagster as dg
from dagster_ray import ray_executor

from lorif_assets.definitions import defs as local

defs = dg.Definitions(
    assets=local.assets,
    asset_checks=local.asset_checks,
    jobs=local.jobs,
    sensors=local.sensors,
    schedules=local.schedules,
    resources=local.resources,
    executor=ray_executor.configured({"ray": {"address": {"env": "RAY_DASHBOARD_ADDRESS"}, "num_cpus": 1}}),
)
