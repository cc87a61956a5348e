"""MLflow: one parent run per checkpoint, a child run per materialization, tagged so that either leads to the other."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.config.secrets import kept_secret, logged_in, secrets_in
from lorif_assets.errors import SettingsError
from lorif_assets.machine_locks import MachineLock

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_CHECKPOINT_TAG = "lorif.checkpoint"
_ASSET_TAG = "lorif.asset"
_DAGSTER_TAG = "dagster.run_id"
# MLflow's name for the tag that makes a run another's child in its user interface.
_PARENT_TAG = "mlflow.parentRunId"


@dataclass(frozen=True)
class TrackedRun:
    """A child run that is open: figures and artifacts of one materialization go to it."""

    client: "MlflowClient"
    run_id: str

    def metrics(self, figures: Mapping[str, float], step: int = 0) -> None:
        """Log figures."""
        for name, value in figures.items():
            self.client.log_metric(self.run_id, name, float(value), step=step)

    def text(self, content: str, name: str) -> None:
        """Log a text artifact, for instance an HTML page."""
        self.client.log_text(self.run_id, content, name)

    def image(self, png: bytes, name: str) -> None:
        """Log a PNG artifact."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, name)
            file.write_bytes(png)
            self.client.log_artifact(self.run_id, str(file))

    def folder(self, path: Path, name: str) -> None:
        """Log a folder of artifacts, for instance an MLflow model."""
        self.client.log_artifacts(self.run_id, str(path), name)


@dataclass(frozen=True)
class StoredRun:
    """A child run as MLflow has it: the asset and the Dagster run that it is of, and whether it is over, and well."""

    run_id: str
    asset: str
    dagster_run: str
    is_finished: bool
    succeeded: bool


@dataclass(frozen=True, kw_only=True)
class Tracking:
    """An MLflow experiment at a tracking URI; without a URI nothing is tracked."""

    uri: str | None = field(default=None, repr=False)
    experiment: str = "lorif"

    @contextmanager
    def materialization(
        self, checkpoint: str, asset: str, tags: Mapping[str, str], params: Mapping[str, object]
    ) -> Iterator[TrackedRun | None]:
        """Open a child run of the checkpoint's run; it ends FAILED if the block raises.

        Args:
            checkpoint: name of the checkpoint, whose parent run is made when first needed.
            asset: the asset that is materialized; the child's name.
            tags: what identifies the materialization (Dagster run, partition).
            params: the recipe.
        """
        if self.uri is None:
            yield None
            return
        # MLflow reports its use to its makers unless this is set before it is imported.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        with kept_secret(secrets_in(self.uri)):
            client = MlflowClient(tracking_uri=logged_in(self.uri))
            experiment_id, parent = self._parent(client, checkpoint)
            child = client.create_run(
                experiment_id,
                run_name=asset,
                tags={_PARENT_TAG: parent, _CHECKPOINT_TAG: checkpoint, _ASSET_TAG: asset, **tags},
            )
            for name, value in params.items():
                client.log_param(child.info.run_id, name, value)
            try:
                yield TrackedRun(client, child.info.run_id)
            except BaseException:
                client.set_terminated(child.info.run_id, "FAILED")
                raise
            client.set_terminated(child.info.run_id, "FINISHED")

    def runs(self) -> list[StoredRun]:
        """Return all child runs of materializations, the newest first; none where nothing is tracked, or was yet."""
        if self.uri is None:
            return []
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow.tracking import MlflowClient

        with kept_secret(secrets_in(self.uri)):
            return self._stored_runs(MlflowClient(tracking_uri=logged_in(self.uri)))

    def _stored_runs(self, client: "MlflowClient") -> list[StoredRun]:
        experiment = client.get_experiment_by_name(self.experiment)
        found: list[StoredRun] = []
        token = None
        while experiment is not None:
            page = client.search_runs([experiment.experiment_id], f"tags.`{_PARENT_TAG}` != ''", page_token=token)
            found += [
                StoredRun(
                    run.info.run_id,
                    run.data.tags.get(_ASSET_TAG, ""),
                    run.data.tags[_DAGSTER_TAG],
                    run.info.status not in {"RUNNING", "SCHEDULED"},
                    run.info.status == "FINISHED",
                )
                for run in page
                if _DAGSTER_TAG in run.data.tags
            ]
            token = page.token
            if not token:
                break
        return found

    @property
    def _artifact_location(self) -> str | None:
        """Beside an SQLite file, where MLflow would use its working directory; None, the server's choice, otherwise."""
        file = (self.uri or "").removeprefix("sqlite:///")
        return None if file == self.uri else (Path(file).absolute().parent / "mlruns").as_uri()

    def _parent(self, client: "MlflowClient", checkpoint: str) -> tuple[str, str]:
        # Two processes that both find no parent would make two.
        with MachineLock("tracking"):
            experiment = client.get_experiment_by_name(self.experiment)
            if experiment and experiment.lifecycle_stage != "active":
                raise SettingsError(
                    f"the MLflow experiment {self.experiment!r} was deleted: restore it (`mlflow experiments restore "
                    f"--experiment-id {experiment.experiment_id}`), or set `tracking.experiment` to another name"
                )
            experiment_id = (
                experiment.experiment_id
                if experiment
                else client.create_experiment(self.experiment, artifact_location=self._artifact_location)
            )
            name = checkpoint.replace("'", "\\'")
            found = client.search_runs(
                [experiment_id],
                f"tags.`{_CHECKPOINT_TAG}` = '{name}' and tags.`{_ASSET_TAG}` = 'checkpoint'",
                max_results=1,
            )
            if found:
                return experiment_id, found[0].info.run_id
            parent = client.create_run(
                experiment_id, run_name=checkpoint, tags={_CHECKPOINT_TAG: checkpoint, _ASSET_TAG: "checkpoint"}
            )
            client.set_terminated(parent.info.run_id, "FINISHED")
            return experiment_id, parent.info.run_id
