"""The Ray cluster: connecting to it, what a worker asks of it, and what it has."""

import os
from dataclasses import dataclass
from typing import Any

from lorif_assets.config.compute import ComputeSettings
from lorif_assets.errors import SettingsError

_GIB = 1 << 30


def connect(settings: ComputeSettings) -> None:
    """Connect this process to the cluster of the settings, unless it is connected already.

    Raises:
        SettingsError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            '`compute.engine = "ray"` needs Ray, which is not installed: pip install "lorif-assets[ray]", or set '
            '`compute.engine = "local"`'
        ) from error
    if ray.is_initialized():
        return
    # Ray asks on a terminal whether it may send figures of use.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray.init(address=settings.address, namespace="lorif", log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise SettingsError(
            f"there is no Ray cluster at `compute.address` = {settings.address!r}: {error}. Start one (`ray start --head`), "
            'correct the address, or set `compute.engine = "local"`'
        ) from error


@dataclass(frozen=True)
class RayResources:
    """How many workers there may be, and what each asks of a node."""

    workers: int
    cpus: float
    gpus: float
    memory_gib: float | None
    custom: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, settings: ComputeSettings, devices_per_worker: int) -> "RayResources":
        """Return what the settings say, or what the cluster offers where they say nothing; it must be connected.

        Raises:
            SettingsError: the cluster has nodes, and none can hold a worker.
        """
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = settings.gpus
        if gpus is None:
            gpus = devices_per_worker if any(node.get("GPU") for node in nodes) else 0
        resources = cls(
            settings.workers or 1, settings.cpus, gpus, settings.memory_gib, tuple(sorted(settings.resources.items()))
        )
        held = sum(resources._held(node) for node in nodes)
        if not held and settings.workers is None:
            raise SettingsError(
                f"no node of the Ray cluster can hold a worker with {resources}: {resources.found()}. Lower what "
                "`compute` asks for; or, where nodes are started on demand, set `compute.workers`"
            )
        return cls(settings.workers or held, resources.cpus, gpus, resources.memory_gib, resources.custom)

    @property
    def options(self) -> dict[str, Any]:
        """The options of an actor. Lost ones are replaced, not restarted: a new one may be on another node."""
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "memory": None if self.memory_gib is None else int(self.memory_gib * _GIB),
            "resources": dict(self.custom) or None,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
        }

    def found(self) -> str:
        """Return what the cluster has, in words."""
        import ray

        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cpus, gpus = (sum(node.get(name, 0) for node in nodes) for name in ("CPU", "GPU"))
        memory = sum(node.get("memory", 0) for node in nodes) / _GIB
        return f"the cluster has {len(nodes)} nodes with {cpus:g} CPUs, {gpus:g} GPUs and {memory:,.0f} GiB of memory"

    def _held(self, node: dict[str, float]) -> int:
        """Return how many workers a node holds."""
        memory = (self.memory_gib or 0) * _GIB
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": memory, **dict(self.custom)}
        return min((int(node.get(name, 0) / amount) for name, amount in asked.items() if amount), default=1)

    def __str__(self) -> str:
        memory = f", {self.memory_gib:g} GiB of memory" if self.memory_gib else ""
        others = "".join(f", {amount:g} {name}" for name, amount in self.custom)
        return f"{self.cpus:g} CPUs, {self.gpus:g} GPUs{memory}{others}"
