"""The resources of a project, made from its settings."""

from typing import TypedDict

from lorif_assets.settings import Settings
from resources.devices import Devices
from resources.lake import Lake
from resources.models import Checkpoints
from resources.registered_models import RegisteredCheckpoints
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
        "model_checkpoints": model_checkpoints(settings),
        "devices": Devices(
            names=[] if settings.devices.devices == "auto" else list(settings.devices.devices),
            per_checkpoint=settings.devices.per_checkpoint,
        ),
        "tracking": Tracking(uri=settings.tracking_uri, experiment=settings.tracking.experiment),
    }


def model_checkpoints(settings: Settings) -> Checkpoints:
    """Return where the settings look for checkpoints."""
    chosen = settings.checkpoints
    registry_uri = chosen.registry_uri or settings.tracking_uri
    if chosen.registered_model is None or registry_uri is None:
        path = settings.resolve(chosen.path or "checkpoints")
        return Checkpoints(path=path, trust_remote_code=chosen.trust_remote_code)
    return RegisteredCheckpoints(
        path=settings.resolve(chosen.path) if chosen.path else "",
        trust_remote_code=chosen.trust_remote_code,
        registered_model=chosen.registered_model,
        alias=chosen.alias,
        registry_uri=registry_uri,
        cache=settings.resolve(chosen.cache),
    )
