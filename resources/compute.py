"""Where shards are computed, as a Dagster resource."""

from typing import Literal

import dagster as dg
from pydantic import Field

from lorif_assets.config.compute import ComputeSettings


class ComputeResource(dg.ConfigurableResource[ComputeSettings]):
    """The engine that works shard by shard: this machine, or the workers of a Ray cluster."""

    engine: Literal["local", "ray"] = Field("local", description="Where shards are computed.")
    address: str = Field("auto", description="The Ray cluster.")
    workers: int | None = Field(None, description="Workers at most; default: as many as the cluster holds.")
    cpus: float = Field(1, description="CPUs of a worker.")
    gpus: float | None = Field(
        None, description="GPUs of a worker; default: devices of a checkpoint, if there are any."
    )
    memory_gib: float | None = Field(None, description="GiB of memory that a worker needs.")
    custom_resources: dict[str, float] = Field(
        default_factory=dict, description="Ray's custom resources that a worker takes."
    )
    attempts: int = Field(3, description="Lost workers after which a shard is left as failed.")

    @classmethod
    def of(cls, settings: ComputeSettings) -> "ComputeResource":
        """Return the resource that hands out these settings."""
        values = settings.model_dump()
        return cls(custom_resources=values.pop("resources"), **values)

    def create_resource(self, context: dg.InitResourceContext) -> ComputeSettings:
        """Return the settings; no cluster is asked yet."""
        del context
        values = {name: getattr(self, name) for name in ComputeSettings.model_fields if name != "resources"}
        return ComputeSettings(resources=self.custom_resources, **values)
