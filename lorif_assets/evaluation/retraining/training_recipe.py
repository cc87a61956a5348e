"""Retraining the model on chosen examples, with the training recipe that the settings name."""

import fcntl
import json
import pkgutil
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lorif_assets.config.evaluation import EvaluationSettings
from lorif_assets.config.secrets import shown_command
from lorif_assets.errors import CheckpointError, LorifError, RetrainingError, SettingsError
from lorif_assets.evaluation.retraining.trainer_code import trainer_hash
from lorif_assets.machine_locks import WAITS
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.files.checkpoint_files import CheckpointFiles

_FINISHED = "retraining.json"
_LOG = "training.log"
_LOG_LINES = 20


def training_recipe(evaluation: EvaluationSettings) -> str:
    """Return the identity of the training recipe: its callable or command, and its version.

    Raises:
        SettingsError: the settings name none.
    """
    if not (evaluation.trainer or evaluation.command):
        raise SettingsError(
            "retraining needs a training recipe: name `evaluation.trainer` (a Python callable) or `evaluation.command`, "
            "or load external ground truth with `evaluation.ground_truth`"
        )
    return f"{evaluation.trainer or ' '.join(evaluation.command)} version {evaluation.trainer_version}"


def shown_recipe(evaluation: EvaluationSettings) -> str:
    """Return the training recipe for a page or a message: `training_recipe`, without what of a command nobody may see.

    Raises:
        SettingsError: the settings name none.
    """
    if evaluation.command:
        evaluation = evaluation.model_copy(update={"command": (shown_command(evaluation.command),)})
    return training_recipe(evaluation)


@dataclass(frozen=True)
class RetrainedModel:
    """A retrained checkpoint, the seconds that training took, and the hash of the code that trained, where it is known."""

    checkpoint: CheckpointFiles
    seconds: float
    trainer_hash: str | None


def retrained_model(
    evaluation: EvaluationSettings, examples: pa.Table, seed: int, folder: Path, version: str
) -> RetrainedModel:
    """Return the model of a version from its folder, retrained now if it is not there yet.

    Raises:
        SettingsError, RetrainingError: as `retrain` does.
    """
    marker = folder / _FINISHED
    if marker.is_file() and (kept := json.loads(marker.read_text()))["version"] == version:
        checkpoint = _written(Path(kept["path"]))[-1]
        return RetrainedModel(checkpoint, kept["seconds"], kept.get("trainer_hash"))
    started, code = time.monotonic(), trainer_hash(evaluation)
    checkpoint = retrain(evaluation, examples, seed, folder)
    seconds = time.monotonic() - started
    # Written last: it says that the model is complete, also to a run that follows one that was killed.
    about = {"version": version, "path": str(checkpoint.path), "seconds": seconds, "trainer_hash": code}
    marker.write_text(json.dumps(about))
    return RetrainedModel(checkpoint, seconds, code)


def retrain(evaluation: EvaluationSettings, examples: pa.Table, seed: int, folder: Path) -> CheckpointFiles:
    """Train a model on these examples, and return its last checkpoint, below the folder.

    The recipe gets a Parquet file of the examples, with the columns of `training_examples`. First, whatever an interrupted
    attempt left in the folder is removed, once the command that it had started, which may outlive it, has ended.

    Raises:
        SettingsError: the settings name no recipe, or one that cannot be imported or started.
        RetrainingError: the recipe failed, or left no complete checkpoint.
    """
    recipe = shown_recipe(evaluation)
    _await_earlier(folder / _LOG)
    shutil.rmtree(folder, ignore_errors=True)
    output = folder / "model"
    output.mkdir(parents=True)
    file = folder / "examples.parquet"
    pq.write_table(examples, file)
    if evaluation.trainer:
        _call(evaluation.trainer, file, seed, output)
    else:
        _execute(evaluation.command, file, seed, output, folder / _LOG)
    try:
        written = _written(output)
    except CheckpointError as error:
        raise RetrainingError(f"the training recipe {recipe!r} left no checkpoint: {error}") from error
    found = [checkpoint for checkpoint in written if checkpoint.is_complete()]
    if not found:
        raise RetrainingError(
            f"the training recipe {recipe!r} left no complete checkpoint in {output}: expected config.json, "
            "*.safetensors and a tokenizer there, or in a directory of it"
        )
    return found[-1]


def _written(folder: Path) -> Sequence[CheckpointFiles]:
    """Return the checkpoints that a training recipe wrote; an adapter's base model is none of them."""
    return Checkpoints(path=str(folder), include_base=False).find()


def imported_trainer(trainer: str) -> Callable[[Path, int, Path], object]:
    """Return the Python callable that the settings name as training recipe.

    Raises:
        SettingsError: it cannot be imported.
    """
    try:
        function: Callable[[Path, int, Path], object] = pkgutil.resolve_name(trainer)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            f"`evaluation.trainer` names {trainer!r}, which cannot be imported ({error}); expected 'package.module:function'"
        ) from error
    return function


def _call(trainer: str, file: Path, seed: int, output: Path) -> None:
    function = imported_trainer(trainer)
    try:
        function(file, seed, output)
    except LorifError:
        raise
    except Exception as error:
        raise RetrainingError(f"the trainer {trainer!r} failed with {type(error).__name__}: {error}") from error


def _await_earlier(log: Path) -> None:
    """Wait until no process writes to a log any more: one that goes on would put its checkpoints beside those of the next."""
    if not log.is_file():
        return
    with log.open() as stream, suppress(OSError):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            WAITS.warning(f"waiting for a training that outlived the run that had started it; its log is {log}")
            fcntl.flock(stream, fcntl.LOCK_EX)


def _execute(command: tuple[str, ...], file: Path, seed: int, output: Path, log: Path) -> None:
    words = [word.format(examples=file, seed=seed, output=output) for word in command]
    with log.open("w") as stream:
        # The command has the log, and so its lock, until it ends, whatever becomes of this process.
        with suppress(OSError):
            fcntl.flock(stream, fcntl.LOCK_EX)
        try:
            done = subprocess.run(words, stdout=stream, stderr=subprocess.STDOUT, check=False)  # noqa: S603
        except OSError as error:
            raise SettingsError(f"`evaluation.command` cannot be started: {error}") from error
    if done.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
        raise RetrainingError(
            f"the training command {shown_command(words)!r} ended with {done.returncode}; its last lines ({log}):\n{last}"
        )
