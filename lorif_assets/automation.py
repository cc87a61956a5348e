"""What happens by itself: new shards, checkpoints and query sets become partitions."""

import dagster as dg

from lorif_assets.discovery import discover, new_partitions
from lorif_assets.errors import LorifError
from lorif_assets.settings import Settings
from resources.models import Checkpoints


@dg.sensor(
    name="discovery", minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING, asset_selection="*"
)
def discovery_sensor(
    context: dg.SensorEvaluationContext, settings: dg.ResourceParam[Settings], model_checkpoints: Checkpoints
) -> dg.SensorResult | dg.SkipReason:
    """Adds the shards, checkpoints and query sets that lorif.toml points at as partitions."""
    try:
        requests = new_partitions(context.instance, discover(settings, model_checkpoints))
    except LorifError as error:
        return dg.SkipReason(str(error))
    if not requests:
        return dg.SkipReason("nothing new")
    return dg.SensorResult(dynamic_partitions_requests=requests)
