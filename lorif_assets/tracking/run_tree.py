"""The runs of a project in MLflow: one of the project, one of each checkpoint, and under that one of each materialization."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lorif_assets.config.content_hash import content_hash
from lorif_assets.errors import SettingsError
from lorif_assets.machine_locks import MachineLock
from lorif_assets.tracking.facts import CheckpointFacts

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CHECKPOINT_TAG: Final = "lorif.checkpoint"
ASSET_TAG: Final = "lorif.asset"
DAGSTER_TAG: Final = "dagster.run_id"
# MLflow's name for the tag that makes a run another's child in its user interface.
PARENT_TAG: Final = "mlflow.parentRunId"
NOTE_TAG: Final = "mlflow.note.content"
_KEY_TAG = "lorif.key"
_OF_A_CHECKPOINT, _OF_A_PROJECT = "checkpoint", "project"


@dataclass(frozen=True)
class Runs:
    """Ids of the runs that a materialization reports to; `child` and `project` may be empty."""

    experiment: str
    checkpoint: str
    project: str
    child: str = ""


class RunTree:
    """Finds the runs of an experiment, and makes those that are missing."""

    def __init__(self, client: "MlflowClient", experiment: str, artifact_location: str | None) -> None:
        """Take MLflow, an experiment's name, and where its artifacts go if it is made; None: the server's choice."""
        self._client, self._experiment, self._artifact_location = client, experiment, artifact_location

    def runs(self, checkpoint: str, facts: CheckpointFacts, started: int) -> Runs:
        """Return the runs of a checkpoint and of its project.

        Args:
            checkpoint: its name.
            facts: about it.
            started: when what reports to it began, in milliseconds since 1970.

        Raises:
            SettingsError: the experiment was deleted.
        """
        # Two processes that both find no run would make two.
        with MachineLock("tracking"):
            experiment = self._experiment_id()
            own = {CHECKPOINT_TAG: checkpoint, ASSET_TAG: _OF_A_CHECKPOINT, **facts.checkpoint_tags}
            of_checkpoint = self._run(experiment, checkpoint, own, facts.checkpoint_note, facts, started)
            if not facts.project:
                return Runs(experiment, of_checkpoint, "")
            own = {ASSET_TAG: _OF_A_PROJECT}
            return Runs(
                experiment,
                of_checkpoint,
                self._run(experiment, facts.project, own, facts.project_note, facts, started),
            )

    def _experiment_id(self) -> str:
        experiment = self._client.get_experiment_by_name(self._experiment)
        if experiment and experiment.lifecycle_stage == "deleted":
            raise SettingsError(
                f"the MLflow experiment {self._experiment!r} was deleted: restore it (`mlflow experiments restore "
                f"--experiment-id {experiment.experiment_id}`), or set `tracking.experiment` to another name"
            )
        found: str = (
            experiment.experiment_id
            if experiment
            else self._client.create_experiment(self._experiment, artifact_location=self._artifact_location)
        )
        return found

    def _run(
        self, experiment: str, name: str, own: Mapping[str, str], note: str, facts: CheckpointFacts, started: int
    ) -> str:
        """Return the id of the run of a checkpoint or a project, which is made where there is none."""
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        # A hash, as MLflow's filters have no way to write every name.
        key = content_hash([own.get(CHECKPOINT_TAG), facts.lake, facts.recipe])
        found = self._client.search_runs([experiment], f"tags.`{_KEY_TAG}` = '{key}'", max_results=1)
        if found:
            run_id: str = found[0].info.run_id
            return run_id
        tags = {**own, **facts.tags, "lorif.lake": facts.lake, "lorif.recipe": facts.recipe, NOTE_TAG: note}
        said = {_KEY_TAG: key, **{tag: value for tag, value in tags.items() if value}}
        run_id = self._client.create_run(experiment, start_time=started, run_name=name, tags=said).info.run_id
        if not run_id:
            raise MlflowException("it made a run without an id, as no MLflow does")
        if facts.params:
            self._client.log_batch(run_id, params=[Param(key, value) for key, value in facts.params.items()])
        # It is no process that runs: its time is that of its children, which add theirs.
        self._client.set_terminated(run_id, "FINISHED", started)
        return run_id
