"""The same graph with each step as a Ray job of its own: `dagster dev -m deploy.ray.definitions`.

Not needed for `compute.engine = "ray"`, under which a step has workers on the cluster wherever it runs itself. It moves the
steps' own processes there too.
"""

from dagster_ray import ray_executor

from lorif_assets.automation.jobs import asset_jobs
from lorif_assets.definitions import definitions

_ON_RAY = ray_executor.configured({"ray": {"address": {"env": "RAY_DASHBOARD_ADDRESS"}, "num_cpus": 1}})

defs = definitions(asset_jobs(_ON_RAY), _ON_RAY)
