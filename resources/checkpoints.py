"""The checkpoints as a Dagster resource."""

import dagster as dg
from pydantic import Field

from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.hub_checkpoints import HubCheckpoints
from lorif_assets.models.registry import RegisteredCheckpoints


class CheckpointsResource(dg.ConfigurableResource[Checkpoints]):
    """Where checkpoints appear: a directory that a trainer writes to, the hub, an MLflow registered model, or both."""

    path: str = Field(description="A checkpoint directory, a directory of them, or hf://org/name; empty: none.")
    plain_name: str = Field("", description="The path as a name on the hub, where no such directory is.")
    trust_remote_code: bool = Field(False, description="Run Python code that a checkpoint carries.")
    registered_model: str | None = Field(None, description="Name of an MLflow registered model.")
    alias: str | None = Field(None, description="Only the version of the registered model that has this alias.")
    registry_uri: str = Field("", description="MLflow's URI, for a registered model.")
    cache: str = Field("", description="Directory that versions of a registered model are downloaded to.")

    @classmethod
    def of(cls, checkpoints: Checkpoints) -> "CheckpointsResource":
        """Return the resource that hands out these checkpoints."""
        return cls(**vars(checkpoints))

    def create_resource(self, context: dg.InitResourceContext) -> Checkpoints:
        """Return the checkpoints; nothing is looked for yet."""
        del context
        if self.registered_model is None:
            return HubCheckpoints(path=self.path, plain_name=self.plain_name, trust_remote_code=self.trust_remote_code)
        return RegisteredCheckpoints(
            path=self.path,
            plain_name=self.plain_name,
            trust_remote_code=self.trust_remote_code,
            registered_model=self.registered_model,
            alias=self.alias,
            registry_uri=self.registry_uri,
            cache=self.cache,
        )
