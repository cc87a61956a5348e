"""MLflow as a Dagster resource."""

import dagster as dg
from pydantic import Field

from lorif_assets.tracking import Tracking


class TrackingResource(dg.ConfigurableResource[Tracking]):
    """An MLflow experiment; without a URI nothing is tracked."""

    uri: str | None = Field(None, description="MLflow tracking URI.")
    experiment: str = Field("lorif", description="Experiment name.")
    queue: str = Field("", description="Folder that keeps what MLflow cannot be told now.")

    @classmethod
    def of(cls, tracking: Tracking) -> "TrackingResource":
        """Return the resource that hands out this experiment."""
        return cls(uri=tracking.uri, experiment=tracking.experiment, queue=tracking.queue)

    def create_resource(self, context: dg.InitResourceContext) -> Tracking:
        """Return the experiment; no server is asked yet."""
        del context
        return Tracking(uri=self.uri, experiment=self.experiment, queue=self.queue)
