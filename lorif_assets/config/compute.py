"""The section `compute`: where shards are computed; it changes no result."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from lorif_assets.config.secrets import Place


class ComputeSettings(BaseModel):
    """Where shards are computed. It changes no result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["local", "ray"] = Field(
        "local",
        description='"local": by the process of the run, on one group of this machine\'s devices; "ray": by the workers of a '
        "Ray cluster, each of which loads the model once.",
    )
    address: Place = Field(
        "auto",
        description='The Ray cluster: "auto" (the one that this machine is part of, or $RAY_ADDRESS), "local" (one is started '
        "in this machine for the run), a head node's host:port, or ray://host:port.",
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="Workers at most; default: as many as the cluster's nodes hold when a run starts. Set it where nodes are "
        "started on demand.",
    )
    cpus: float = Field(1, gt=0, description="CPUs of a worker; it computes with as many threads.")
    gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs of a worker; default: `devices.per_checkpoint`, or 0 where no node has one.",
    )
    memory_gib: float | None = Field(
        None, gt=0, description="GiB of main memory that a node must have free for a worker; default: not looked at."
    )
    resources: dict[str, float] = Field(
        default_factory=dict, description="Ray's custom resources that a worker takes, such as {a100 = 1}."
    )
    attempts: int = Field(
        3,
        ge=1,
        description="How many workers may be lost with the same shard in hand before the shard is left as failed.",
    )
