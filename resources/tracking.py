"""MLflow as a Dagster resource."""

import dagster as dg
from pydantic import Field

from lorif_assets.config.secrets import Hidden, masked_address
from lorif_assets.tracking import Tracking


class TrackingResource(dg.ConfigurableResource[Tracking]):
    """An MLflow experiment; without a URI nothing is tracked."""

    uri: str | None = Field(None, description="MLflow tracking URI, as it may be seen.")
    experiment: str = Field("lorif", description="Experiment name.")
    queue: str = Field("", description="Folder that keeps what MLflow cannot be told now.")
    web_address: str = Field("", description="Where a browser finds MLflow.")
    artifacts: str = Field("mlruns", description="Folder for what runs leave, where the URI is a database on a server.")
    # Dagster shows all that is configured; a dependency is only named.
    address: dg.ResourceDependency[Hidden[str | None]]

    @classmethod
    def of(cls, tracking: Tracking) -> "TrackingResource":
        """Return the resource that hands out this experiment."""
        shown = None if tracking.uri is None else masked_address(tracking.uri)
        return cls(
            uri=shown,
            experiment=tracking.experiment,
            queue=tracking.queue,
            web_address=tracking.address,
            artifacts=tracking.artifacts,
            address=Hidden(tracking.uri),
        )

    def create_resource(self, context: dg.InitResourceContext) -> Tracking:
        """Return the experiment; no server is asked yet."""
        del context
        return Tracking(
            uri=self.address.value,
            experiment=self.experiment,
            queue=self.queue,
            address=self.web_address,
            artifacts=self.artifacts,
        )
