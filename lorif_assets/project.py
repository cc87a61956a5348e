"""One project, opened from lorif.toml: its settings, lake, checkpoints, devices, tracking and engine."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.config.compute import ComputeSettings
from lorif_assets.config.hub_names import is_plain_name
from lorif_assets.config.secrets import revealed_options, separated_login
from lorif_assets.config.settings import Settings, load_settings
from lorif_assets.errors import SettingsError
from lorif_assets.lake.lake import Lake
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import Devices
from lorif_assets.models.places.hub_checkpoints import HubCheckpoints
from lorif_assets.models.places.registry import RegisteredCheckpoints
from lorif_assets.tracking import Tracking

if TYPE_CHECKING:
    from lorif_assets.compute.shard_work import Engine


@dataclass(frozen=True)
class Project:
    """What assets, commands and the Python API work with."""

    settings: Settings
    lake: Lake
    checkpoints: Checkpoints
    devices: Devices
    tracking: Tracking
    compute: ComputeSettings

    @classmethod
    def open(cls, path: Path | None = None) -> "Project":
        """Open the project of a settings file; without one, of $LORIF_CONFIG, ./lorif.toml or the demo.

        Raises:
            SettingsError: the file does not exist, or a setting is wrong.
        """
        return cls.of(load_settings(path))

    @classmethod
    def of(cls, settings: Settings) -> "Project":
        """Return the project that settings describe; nothing is read or written yet.

        Raises:
            SettingsError: a secret is to come from an environment variable that is not set.
        """
        _refuse_two_logins(settings)
        devices = settings.devices
        return cls(
            settings,
            Lake(settings.lake_root, revealed_options(settings.lake.storage_options, "lake.storage_options")),
            _checkpoints(settings),
            Devices(
                names=() if devices.devices == "auto" else devices.devices,
                per_checkpoint=devices.per_checkpoint,
                project=settings.lake_root,
            ),
            Tracking(
                uri=settings.tracking_uri,
                experiment=settings.tracking.experiment,
                queue=settings.resolve("tracking_queue"),
                address=settings.mlflow_address,
                artifacts=settings.resolve("mlruns"),
            ),
            settings.compute,
        )

    @property
    def engine(self) -> "Engine":
        """What shards are computed by."""
        if self.compute.engine == "ray":
            from lorif_assets.compute.ray_engine import RayEngine

            return RayEngine(self.compute, self.devices.per_checkpoint)
        from lorif_assets.compute.local import LocalEngine

        return LocalEngine(self.devices)


def _refuse_two_logins(settings: Settings) -> None:
    addresses = filter(None, (settings.tracking_uri, settings.registry_uri))
    logins = {login for address in addresses if (login := separated_login(address)[1])}
    if len(logins) > 1:
        raise SettingsError(
            "`tracking.uri` and `checkpoints.registry_uri` have different users or passwords, of which MLflow takes one at a "
            "time; give both the same"
        )


def _checkpoints(settings: Settings) -> Checkpoints:
    chosen = settings.checkpoints
    registry_uri = settings.registry_uri
    # At step 0 an adapter's matrices do nothing, and are stored nowhere.
    include_base = chosen.include_base and settings.recipe.track == "weights"
    plain_name = chosen.path if chosen.path and is_plain_name(chosen.path) else ""
    if chosen.registered_model is None or registry_uri is None:
        return HubCheckpoints(
            path=settings.resolve(chosen.path or "checkpoints"),
            plain_name=plain_name,
            trust_remote_code=chosen.trust_remote_code,
            base_model=settings.base_model,
            include_base=include_base,
            limits=chosen.limits,
        )
    return RegisteredCheckpoints(
        path=settings.resolve(chosen.path) if chosen.path else "",
        plain_name=plain_name,
        trust_remote_code=chosen.trust_remote_code,
        base_model=settings.base_model,
        include_base=include_base,
        limits=chosen.limits,
        registered_model=chosen.registered_model,
        alias=chosen.alias,
        registry_uri=registry_uri,
        cache=settings.resolve(chosen.cache),
    )
