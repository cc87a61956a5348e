"""The lake as a Dagster resource."""

import dagster as dg
from pydantic import Field

from lorif_assets.lake.lake import Lake


class LakeResource(dg.ConfigurableResource[Lake]):
    """All tables and tensors of a project."""

    root: str = Field(description="Directory or object-store URL that holds the tables.")
    storage_options: dict[str, str] = Field(default_factory=dict, description="delta-rs storage options.")

    @classmethod
    def of(cls, lake: Lake) -> "LakeResource":
        """Return the resource that hands out this lake."""
        return cls(root=lake.root, storage_options=dict(lake.storage_options))

    def create_resource(self, context: dg.InitResourceContext) -> Lake:
        """Return the lake; nothing is opened yet."""
        del context
        return Lake(self.root, self.storage_options)
