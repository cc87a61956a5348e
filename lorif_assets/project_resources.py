"""The resources of a project, made from its settings."""

from typing import TypedDict

from lorif_assets.settings import Settings
from resources.devices import Devices
from resources.lake import Lake
from resources.models import Checkpoints
from resources.tracking import Tracking


class ProjectResources(TypedDict):
    """What assets and sensors ask for by these names."""

    settings: Settings
    lake: Lake
    model_checkpoints: Checkpoints
    devices: Devices
    tracking: Tracking


def project_resources(settings: Settings) -> ProjectResources:
    """Return the resources that the settings describe; nothing is opened yet."""
    return {
        "settings": settings,
        "lake": Lake(root=settings.lake_root, storage_options=settings.lake.storage_options),
        "model_checkpoints": Checkpoints(
            path=settings.resolve(settings.checkpoints.path), trust_remote_code=settings.checkpoints.trust_remote_code
        ),
        "devices": Devices(names=[] if settings.devices.devices == "auto" else list(settings.devices.devices)),
        "tracking": Tracking(uri=settings.tracking_uri, experiment=settings.tracking.experiment),
    }
