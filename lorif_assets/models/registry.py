"""Checkpoints in a model registry: the versions of an MLflow registered model, downloaded once when first needed."""

import os
import shutil
import uuid
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.errors import CheckpointError
from lorif_assets.lake.partition_names import partition_name
from lorif_assets.machine_locks import machine_lock
from lorif_assets.models.checkpoints import NAME_PUNCTUATION, TOKENIZER_FILES, CheckpointFiles, Checkpoints

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_READY = "READY"
_STEP = "step"


@dataclass(frozen=True)
class RegisteredCheckpoint(CheckpointFiles):
    """One version of a registered model; `path` is where its files are once `check` has downloaded them."""

    registry_uri: str
    source: str
    """Where MLflow keeps the version's files."""
    fingerprint: str
    """Hash of what identifies the version: name, number, source, time of creation."""

    def is_complete(self) -> bool:
        """Whether its files are whole: the registry lists a version as ready only once they are."""
        return True

    def version(self) -> str:
        """Return what changes when the registry holds another version by this name, without downloading anything."""
        return self.fingerprint

    def check(self) -> None:
        """Download the files if they are not here yet, and refuse those that cannot be loaded safely.

        Raises:
            CheckpointError: the download fails, or its files are not a safe checkpoint.
        """
        with machine_lock(f"download-{self.fingerprint}"):
            if not self.path.is_dir():
                self._download()
        super().check()

    def _download(self) -> None:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        partial = self.path.with_name(f".{uuid.uuid4().hex}")
        partial.mkdir(parents=True)
        try:
            root = Path(
                download_artifacts(artifact_uri=self.source, dst_path=str(partial), tracking_uri=self.registry_uri)
            )
            # A reader sees the whole folder or none.
            _assembled(root, self.name).replace(self.path)
        except (MlflowException, OSError) as error:
            raise CheckpointError(f"{self.name} cannot be downloaded from {self.source}: {error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@dataclass(frozen=True, kw_only=True)
class RegisteredCheckpoints(Checkpoints):
    """The versions of a registered model, named `model:7`, beside the checkpoints of a directory, if there is one.

    With an `alias`, only the version that has it; `cache` is the directory of downloaded versions.
    """

    registered_model: str
    alias: str | None = None
    registry_uri: str
    cache: str

    @property
    def location(self) -> str:
        """Where checkpoints are looked for, in words."""
        registry = f"the registered model {self.registered_model!r} in {self.registry_uri}"
        return f"{self.path} and {registry}" if self.path else registry

    def find(self) -> list[CheckpointFiles]:
        """Return the checkpoints in order of step, then name; from the registry, the versions that are ready.

        Raises:
            CheckpointError: the registry does not answer or lacks the model or alias, or a path does not exist.
        """
        return self.in_order([*(super().find() if self.path else []), *self._versions()])

    def _versions(self) -> list[CheckpointFiles]:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=self.registry_uri, registry_uri=self.registry_uri)
        try:
            client.get_registered_model(self.registered_model)
            name = self.registered_model.replace("'", "''")
            found = (
                [client.get_model_version_by_alias(self.registered_model, self.alias)]
                if self.alias
                else client.search_model_versions(f"name = '{name}'")
            )
            return [self._checkpoint(client, version) for version in found if version.status == _READY]
        except MlflowException as error:
            raise CheckpointError(
                f"{self.location} cannot be read; correct `checkpoints.registered_model`, `checkpoints.alias` or "
                f"`checkpoints.registry_uri`: {error}"
            ) from error

    def _checkpoint(self, client: "MlflowClient", version: "ModelVersion") -> RegisteredCheckpoint:
        identity = [version.name, str(version.version), version.source, version.creation_timestamp]
        fingerprint = blake2b(repr(identity).encode(), digest_size=16).hexdigest()
        name = partition_name(f"{version.name}:{version.version}", NAME_PUNCTUATION)
        return RegisteredCheckpoint(
            name=name,
            # A model that was deleted and made again counts its versions from 1 again.
            path=Path(self.cache, f"{name.replace(':', '-')}-{fingerprint[:8]}"),
            step=_step(client, version),
            registry_uri=self.registry_uri,
            source=client.get_model_version_download_uri(version.name, str(version.version)),
            fingerprint=fingerprint,
        )


def _step(client: "MlflowClient", version: "ModelVersion") -> int:
    """Return the training step: the version's tag `step`, else its run's tag or parameter `step`, else its number."""
    tags = dict(version.tags or {})
    if _STEP not in tags and version.run_id:
        run = client.get_run(version.run_id).data
        tags = {**run.params, **run.tags}
    return int(tags[_STEP]) if tags.get(_STEP, "").isdigit() else int(version.version)


def _assembled(root: Path, name: str) -> Path:
    """Return the folder of a downloaded artifact that holds the model, with the tokenizer beside it.

    A plain folder has both; MLflow's transformers flavour keeps the model in `model` and the tokenizer in
    `components/tokenizer`.
    """
    folders = sorted(file.parent for file in root.rglob("config.json"))
    with_weights = [folder for folder in folders if any(folder.glob("*.safetensors"))] or folders
    if len(with_weights) != 1:
        found = ", ".join(str(folder.relative_to(root)) for folder in folders) or "none"
        raise CheckpointError(
            f"the artifact of {name} has to hold one folder with config.json and *.safetensors; found {found}. Log the "
            "folder that `save_pretrained` wrote, or use MLflow's transformers flavour with its weights"
        )
    (model,) = with_weights
    for file in sorted(root.rglob("*")):
        if file.name in TOKENIZER_FILES and not (model / file.name).exists():
            shutil.copy(file, model / file.name)
    return model
