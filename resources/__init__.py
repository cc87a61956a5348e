"""What Dagster hands to assets, checks and sensors by name: faces of a project's lake, checkpoints, devices, tracking."""

from typing import Any

from lorif_assets.project import Project
from resources.checkpoints import CheckpointsResource
from resources.devices import DevicesResource
from resources.lake import LakeResource
from resources.tracking import TrackingResource


def dagster_resources(project: Project) -> dict[str, Any]:
    """Return the resources of a project by the names that assets ask for."""
    return {
        "settings": project.settings,
        "lake": LakeResource.of(project.lake),
        "model_checkpoints": CheckpointsResource.of(project.checkpoints),
        "devices": DevicesResource.of(project.devices),
        "tracking": TrackingResource.of(project.tracking),
    }
