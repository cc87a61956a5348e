"""The devices as a Dagster resource."""

import dagster as dg
from pydantic import Field

from lorif_assets.models.devices import Devices


class DevicesResource(dg.ConfigurableResource[Devices]):
    """The devices that steps may use, one group at a time."""

    names: list[str] = Field(
        default_factory=list, description="Torch device names; empty: every CUDA device, else CPU."
    )
    per_checkpoint: int = Field(1, ge=1, description="Devices of a group, over which a checkpoint is spread.")
    project: str = Field("", description="Whose steps wait for one another on the CPU.")

    @classmethod
    def of(cls, devices: Devices) -> "DevicesResource":
        """Return the resource that hands out these devices."""
        return cls(names=list(devices.names), per_checkpoint=devices.per_checkpoint, project=devices.project)

    def create_resource(self, context: dg.InitResourceContext) -> Devices:
        """Return the devices; none is leased yet."""
        del context
        return Devices(names=self.names, per_checkpoint=self.per_checkpoint, project=self.project)
