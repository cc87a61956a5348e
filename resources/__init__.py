"""What Dagster hands to assets, checks and sensors by name: faces of the parts of a project."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lorif_assets.config.settings import Settings
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.project import Project
from resources.checkpoints import CheckpointsResource
from resources.compute import ComputeResource
from resources.devices import DevicesResource
from resources.lake import LakeResource
from resources.tracking import TrackingResource

_FACES: Mapping[str, Callable[[Project], Any]] = {
    "settings": lambda project: project.settings,
    "lake": lambda project: LakeResource.of(project.lake),
    "model_checkpoints": lambda project: CheckpointsResource.of(project.checkpoints),
    "devices": lambda project: DevicesResource.of(project.devices),
    "tracking": lambda project: TrackingResource.of(project.tracking),
    "compute": lambda project: ComputeResource.of(project.compute),
}
RESOURCES = frozenset(_FACES)
"""The names that assets ask for."""


def dagster_resources(project: Project) -> dict[str, Any]:
    """Return the resources of a project by name."""
    return {name: face(project) for name, face in _FACES.items()}


def inspected_project(settings: Settings, lake: Lake, model_checkpoints: Checkpoints) -> Project:
    """Return the project that sensors and checks look at; they are given neither devices nor tracking."""
    return replace(Project.of(settings), lake=lake, checkpoints=model_checkpoints)


def opened_project(resources: Any) -> Project:
    """Return the project that the resources of a Dagster context make up."""
    return Project(
        settings=resources.settings,
        lake=resources.lake,
        checkpoints=resources.model_checkpoints,
        devices=resources.devices,
        tracking=resources.tracking,
        compute=resources.compute,
    )
