"""The whole graph: assets, resources, and the sensor that finds new partitions."""

import dagster as dg

from lorif_assets.assets.checkpoints import checkpoints
from lorif_assets.assets.corpus import query_examples, training_examples
from lorif_assets.assets.gradient_factors import gradient_factors
from lorif_assets.assets.query_scores import query_scores
from lorif_assets.assets.report import attribution_report
from lorif_assets.assets.svd_preconditioners import svd_preconditioners
from lorif_assets.automation import discovery_sensor
from lorif_assets.project_resources import project_resources
from lorif_assets.settings import load_settings

ASSETS = (
    training_examples,
    query_examples,
    checkpoints,
    gradient_factors,
    svd_preconditioners,
    query_scores,
    attribution_report,
)

defs = dg.Definitions(
    assets=ASSETS,
    resources=project_resources(load_settings()),
    sensors=[discovery_sensor],
    executor=dg.multiprocess_executor,
)
