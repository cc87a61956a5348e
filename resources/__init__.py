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


RESOURCES = frozenset({"settings", "lake", "model_checkpoints", "devices", "tracking"})
"""The names."""


def opened_project(resources: Any) -> Project:
    """Return the project that the resources of a Dagster context make up."""
    return Project(
        settings=resources.settings,
        lake=resources.lake,
        checkpoints=resources.model_checkpoints,
        devices=resources.devices,
        tracking=resources.tracking,
    )
