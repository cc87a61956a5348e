"""The checkpoints as a Dagster resource."""

import dagster as dg
from pydantic import Field

from lorif_assets.config.limits import CheckpointLimits
from lorif_assets.config.secrets import Hidden, masked_address
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.places.hub_checkpoints import HubCheckpoints
from lorif_assets.models.places.registry import RegisteredCheckpoints


class CheckpointsResource(dg.ConfigurableResource[Checkpoints]):
    """Where checkpoints appear: a directory that a trainer writes to, the hub, an MLflow registered model, or both."""

    path: str = Field(description="A checkpoint directory, a directory of them, or hf://org/name; empty: none.")
    plain_name: str = Field("", description="The path as a name on the hub, where no such directory is.")
    trust_remote_code: bool = Field(False, description="Run Python code that a checkpoint carries.")
    base_model: str | None = Field(None, description="The model that adapters, or whole models, were trained from.")
    include_base: bool = Field(True, description="Offer the base model as a checkpoint of its own.")
    limits: dict[str, int] = Field({}, description="What the files that describe a checkpoint may ask for.")
    registered_model: str | None = Field(None, description="Name of an MLflow registered model.")
    alias: str | None = Field(None, description="Only the version of the registered model that has this alias.")
    registry_uri: str = Field("", description="MLflow's URI, for a registered model, as it may be seen.")
    cache: str = Field("", description="Directory that versions of a registered model are downloaded to.")
    # Dagster shows all that is configured; a dependency is only named.
    registry: dg.ResourceDependency[Hidden[str]]

    @classmethod
    def of(cls, checkpoints: Checkpoints) -> "CheckpointsResource":
        """Return the resource that hands out these checkpoints."""
        registry_uri = checkpoints.registry_uri if isinstance(checkpoints, RegisteredCheckpoints) else ""
        fields = {name: value for name, value in vars(checkpoints).items() if name in cls.model_fields}
        fields |= {"limits": checkpoints.limits.model_dump(), "registry_uri": masked_address(registry_uri)}
        return cls(**fields, registry=Hidden(registry_uri))

    def create_resource(self, context: dg.InitResourceContext) -> Checkpoints:
        """Return the checkpoints; nothing is looked for yet."""
        del context
        if self.registered_model is None:
            return HubCheckpoints(
                path=self.path,
                plain_name=self.plain_name,
                trust_remote_code=self.trust_remote_code,
                base_model=self.base_model,
                include_base=self.include_base,
                limits=CheckpointLimits(**self.limits),
            )
        return RegisteredCheckpoints(
            path=self.path,
            plain_name=self.plain_name,
            trust_remote_code=self.trust_remote_code,
            base_model=self.base_model,
            include_base=self.include_base,
            limits=CheckpointLimits(**self.limits),
            registered_model=self.registered_model,
            alias=self.alias,
            registry_uri=self.registry.value,
            cache=self.cache,
        )
