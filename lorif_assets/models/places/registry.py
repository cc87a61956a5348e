"""Checkpoints in a model registry: the versions of an MLflow registered model, downloaded once when first needed."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.config.secrets import MaskedError, kept_secret, logged_in, masked_address, secrets_in
from lorif_assets.errors import CheckpointError
from lorif_assets.lake.partition_names import partition_name
from lorif_assets.machine_locks import MachineLock
from lorif_assets.models.checkpoints import NAME_PUNCTUATION, Found
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.artifacts import assembled
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.steps import step_in_text
from lorif_assets.models.loading.fitted_adapter import Track
from lorif_assets.models.places.hub_checkpoints import HubCheckpoints
from lorif_assets.scratch_folders import scratch_folder

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient
    from transformers import PreTrainedModel

_READY = "READY"
_STEP = "step"


@dataclass(frozen=True, kw_only=True)
class RegisteredCheckpoint(CheckpointFiles):
    """One version of a registered model; `path` is where its files are once `check` has downloaded them."""

    registry_uri: str = field(repr=False)
    source: str
    """Where MLflow keeps the version's files."""
    fingerprint: str
    """Hash of what identifies the version: name, number, source, time of creation."""

    def fault(self) -> str | None:
        """Return why its files are not complete, if they are here; the registry lists a version as ready only once they are."""
        return super().fault() if self.path.is_dir() else None

    def content_sample(self) -> str:
        """Return a hash of samples of an adapter's base model; the registry says what its own files hold."""
        return self.base.content_sample() if self.adapter else ""

    def listing_version(self) -> str:
        """Return what changes when the registry holds another version by this name, without downloading anything.

        Of an adapter that is here, it changes with its base model too.
        """
        beside = self.base.listing_version() if self.adapter else self.remark
        return (
            blake2b(f"{self.fingerprint}|{beside}".encode(), digest_size=16).hexdigest() if beside else self.fingerprint
        )

    def check(self) -> None:
        """Download the files if they are not here yet, and refuse those that cannot be loaded safely.

        Raises:
            CheckpointError: the download fails, or its files are not a safe checkpoint.
        """
        with MachineLock(f"download-{self.fingerprint}"):
            if not self.path.is_dir():
                self._download()
        super().check()

    def _download(self) -> None:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with scratch_folder(beside=self.path.parent) as partial, kept_secret(secrets_in(self.registry_uri)):
                place = logged_in(self.registry_uri)
                root = Path(download_artifacts(artifact_uri=self.source, dst_path=str(partial), tracking_uri=place))
                # A reader sees the whole folder or none.
                assembled(root, self.name, self.base_model, self.path).replace(self.path)
        except (MlflowException, OSError, MaskedError) as error:
            raise CheckpointError(f"{self.name} cannot be downloaded from {self.source}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class RegisteredCheckpoints(HubCheckpoints):
    """The versions of a registered model, named `model:7`, beside the checkpoints at a path, if there is one.

    With an `alias`, only the version that has it; `cache` is the directory of downloaded versions.
    """

    registered_model: str
    alias: str | None = None
    registry_uri: str = field(repr=False)
    cache: str

    @property
    def location(self) -> str:
        """Where checkpoints are looked for, in words."""
        registry = f"the registered model {self.registered_model!r} in {masked_address(self.registry_uri)}"
        return f"{super().location} and {registry}" if self.path else registry

    def load_model(
        self, files: CheckpointFiles, dtype: str, devices: DeviceGroup, track: Track = "weights"
    ) -> "PreTrainedModel":
        """Return the model as `Checkpoints.load_model` does.

        Raises:
            CheckpointError: as there; of an adapter whose base model was taken out of its artifact, with the artifact's name.
        """
        try:
            return super().load_model(files, dtype, devices, track)
        except CheckpointError as error:
            if (
                not (isinstance(files, RegisteredCheckpoint) and files.adapter)
                or files.base.path.parent != Path(self.cache).resolve()
            ):
                raise
            raise CheckpointError(
                f"{files.name} cannot be loaded with the base model that its artifact in MLflow holds, which was taken out of "
                f"the adapter's layers: {error}. `checkpoints.base_model` can name the model that the training began with"
            ) from error

    def _listed(self) -> Found:
        """Return the checkpoints of the directory, and from the registry the versions that are ready.

        Raises:
            CheckpointError: the registry does not answer or lacks the model or alias, or a path does not exist.
        """
        here = super()._listed() if self.path else Found((), ())
        versions, notes = self._versions()
        return Found([*here.checkpoints, *versions], [*here.notes, *notes])

    def _versions(self) -> tuple[Sequence[CheckpointFiles], Sequence[str]]:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            with kept_secret(secrets_in(self.registry_uri)):
                return self._asked(MlflowClient(logged_in(self.registry_uri), logged_in(self.registry_uri)))
        except (MlflowException, MaskedError) as error:
            raise CheckpointError(
                f"{self.location} cannot be read; correct `checkpoints.registered_model`, `checkpoints.alias` or "
                f"`checkpoints.registry_uri`: {error}"
            ) from error

    def _asked(self, client: "MlflowClient") -> tuple[Sequence[CheckpointFiles], Sequence[str]]:
        client.get_registered_model(self.registered_model)
        name = self.registered_model.replace("'", "''")
        found = (
            [client.get_model_version_by_alias(self.registered_model, self.alias)]
            if self.alias
            else client.search_model_versions(f"name = '{name}'")
        )
        ready = [version for version in found if version.status == _READY]
        steps = [_step(client, version) for version in ready]
        checkpoints = [self._checkpoint(client, version, step) for version, (step, _) in zip(ready, steps, strict=True)]
        return checkpoints, [note for _, note in steps if note]

    def _checkpoint(self, client: "MlflowClient", version: "ModelVersion", step: int) -> RegisteredCheckpoint:
        identity = [version.name, str(version.version), version.source, version.creation_timestamp]
        fingerprint = blake2b(repr(identity).encode(), digest_size=16).hexdigest()
        name = partition_name(f"{version.name}:{version.version}", NAME_PUNCTUATION)
        return RegisteredCheckpoint(
            name=name,
            # A model that was deleted and made again counts its versions from 1 again.
            path=Path(self.cache, f"{name.replace(':', '-')}-{fingerprint[:8]}"),
            step=step,
            base_model=self.base_model,
            registry_uri=self.registry_uri,
            source=client.get_model_version_download_uri(version.name, str(version.version)),
            fingerprint=fingerprint,
        )


def _step(client: "MlflowClient", version: "ModelVersion") -> tuple[int, str | None]:
    """Return the training step: the version's tag `step`, else its run's tag or parameter `step`, else its number.

    A tag that says no step is told in words beside the number.
    """
    tags = dict(version.tags or {})
    if _STEP not in tags and version.run_id:
        run = client.get_run(version.run_id).data
        tags = {**run.params, **run.tags}
    number = int(version.version)
    if _STEP not in tags:
        return number, None
    step = step_in_text(tags[_STEP])
    if step is not None:
        return step, None
    return number, (
        f"{version.name}:{version.version} has the tag `step` = {tags[_STEP]!r}, which is no whole number of steps: it is "
        f"ordered by its version, as step {number}. Correct the tag"
    )
