"""The lake as a Dagster resource."""

import dagster as dg
from pydantic import Field

from lorif_assets.config.secrets import Hidden, shown_options
from lorif_assets.lake.lake import Lake


class LakeResource(dg.ConfigurableResource[Lake]):
    """All tables and tensors of a project."""

    root: str = Field(description="Directory or object-store URL that holds the tables.")
    storage_options: dict[str, str] = Field(
        default_factory=dict, description="delta-rs storage options, as they may be seen."
    )
    # Dagster shows all that is configured; a dependency is only named.
    options: dg.ResourceDependency[Hidden[dict[str, str]]]

    @classmethod
    def of(cls, lake: Lake) -> "LakeResource":
        """Return the resource that hands out this lake."""
        options = dict(lake.storage_options)
        return cls(root=lake.root, storage_options=shown_options(options), options=Hidden(options))

    def create_resource(self, context: dg.InitResourceContext) -> Lake:
        """Return the lake; nothing is opened yet."""
        del context
        return Lake(self.root, self.options.value)
