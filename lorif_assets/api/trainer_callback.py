"""A callback of transformers' Trainer: checkpoints are registered as they are saved, and attributed in another process."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil
import transformers

from lorif_assets.automation.dagster_home import dagster_home
from lorif_assets.config.settings import settings_file
from lorif_assets.errors import CheckpointError, LorifError, SettingsError
from lorif_assets.project import Project

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from lorif_assets.models.files.checkpoint_files import CheckpointFiles

_LOG = logging.getLogger(__name__)
_NICENESS = 10
# Of a process that trains; another one would take itself for a part of the training.
_OF_TRAINING = re.compile(
    r"((LOCAL|GROUP|ROLE)_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|(ACCELERATE|FSDP|TORCHELASTIC)_.*"
)


class TrainerCallback(transformers.TrainerCallback):
    """Makes each checkpoint that a Trainer saves known to a project, and has it attributed while training goes on.

    A checkpoint is made a partition in Dagster, whose sensors, where they run, attribute it elsewhere. With `query_sets`,
    `lorif materialize` does so in a process of its own, one at a time and at low priority: it needs memory, and takes the
    devices of the project's settings unless `devices` names others than those that the model is trained on. What an end of
    the training cuts short is finished by a resumed training, or by the next `lorif materialize`. A checkpoint that
    `save_total_limit` removes before its turn comes is left out.

    What goes wrong after the training has begun is logged, and never stops it.
    """

    def __init__(
        self,
        settings: str | PathLike[str] | None = None,
        *,
        query_sets: Sequence[str] | Literal["all"] = (),
        devices: Sequence[str] = (),
        wait: bool = False,
    ) -> None:
        """Open the project.

        Args:
            settings: its settings file, or the folder of its lorif.toml; default: as `lorif_assets.open`.
            query_sets: what is attributed of each checkpoint, or "all"; without any, checkpoints are registered alone.
            devices: where, in place of `devices.devices` of the settings.
            wait: whether the end of training waits until all saved checkpoints are attributed.

        Raises:
            SettingsError: the file is not there, or a setting is wrong.
        """
        self._settings = settings_file(Path(settings) if settings is not None else None)
        if not self._settings.is_file():
            raise SettingsError(
                f"there is no settings file {self._settings}; write one (`lorif init`), or give its path"
            )
        self._project = Project.open(self._settings)
        self._query_sets, self._devices, self._wait = query_sets, devices, wait
        self._pending: list[str] = []
        # All that are not known to have ended, and the checkpoints they were asked for: of two, the later may be the first to
        # bring the lake up to date.
        self._processes: dict[subprocess.Popen[bytes], Sequence[str]] = {}

    @property
    def log_file(self) -> Path:
        """What the processes that attribute print."""
        return dagster_home(self._settings) / "trainer_callback.log"

    def on_train_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **others: object
    ) -> None:
        """Refuse a Trainer whose checkpoints the project would not find.

        Raises:
            SettingsError: `checkpoints.path` is not the folder that the Trainer saves to.
        """
        del control, others
        chosen = self._project.settings.checkpoints.path or "checkpoints"
        watched, written = Path(self._project.settings.resolve(chosen)), Path(str(args.output_dir)).resolve()
        if watched != written:
            raise SettingsError(
                f"the Trainer saves to {written}, but `checkpoints.path` in {self._settings} is {watched}: set it to "
                f"{str(written)!r}, or the Trainer's `output_dir` to it"
            )
        if self._query_sets and args.save_total_limit:
            _LOG.warning(
                "`save_total_limit` = %s removes checkpoints that may not be attributed yet", args.save_total_limit
            )
        if self._query_sets and state.global_step and state.is_world_process_zero:
            # Resumed: what the training before saved last may still wait. What is up to date costs nothing.
            self._pending = self._complete()

    def on_save(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **others: object
    ) -> None:
        """Register what was saved, and have it attributed once nothing else is."""
        del control, others
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir), f"{transformers.trainer_utils.PREFIX_CHECKPOINT_DIR}-{state.global_step}")
        try:
            self._register(folder.resolve())
        # The training is worth more than what is told of it.
        except LorifError as error:
            _LOG.warning("the checkpoint in %s could not be registered: %s", folder, error)
        except Exception:
            _LOG.exception("the checkpoint in %s could not be registered", folder)

    def on_train_end(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **others: object
    ) -> None:
        """Have what is left attributed too, and wait for it where that is wanted."""
        del args, control, others
        if not state.is_world_process_zero or not self._query_sets:
            return
        self._settle()
        if self._pending:
            # It and one that runs wait for each other by themselves.
            self._start()
        while self._wait and self._processes:
            for process in self._processes:
                process.wait()
            self._settle()
            if self._pending:
                self._start()
        if self._running():
            _LOG.info("checkpoints are being attributed; see %s", self.log_file)

    def _register(self, folder: Path) -> None:
        import dagster as dg

        from lorif_assets.assets.partitions import CHECKPOINTS_NAME, add_partitions

        found = self._project.checkpoints.look().checkpoints
        saved = next((one for one in found if one.path.resolve() == folder), None)
        fault = self._fault(saved) if saved else "it has no configuration and weights"
        if saved is None or fault:
            _LOG.warning("the checkpoint in %s cannot be attributed: %s", folder, fault)
            return
        names = [one.name for one in found if one.is_complete()]
        with dg.DagsterInstance.from_config(str(dagster_home(self._settings))) as instance:
            add_partitions(instance, CHECKPOINTS_NAME, names)
        if self._query_sets:
            self._pending = [*dict.fromkeys([*self._pending, saved.name])]
            if not self._running():
                self._start()

    def _fault(self, saved: "CheckpointFiles") -> str | None:
        if fault := saved.fault():
            return fault
        try:
            # Trainers train models of other kinds too: encoders, and those with a decoder beside one.
            self._project.checkpoints.skeleton(saved)
        except CheckpointError as error:
            return str(error)
        return None

    def _complete(self) -> list[str]:
        return [one.name for one in self._project.checkpoints.look().checkpoints if one.is_complete()]

    def _start(self) -> None:
        there = self._complete()
        if gone := [name for name in self._pending if name not in there]:
            _LOG.warning("removed before they were attributed, and left out: %s", ", ".join(gone))
        self._pending = [name for name in self._pending if name in there]
        if not self._pending:
            return
        asked = [] if self._query_sets == "all" else self._query_sets
        command = [sys.executable, "-m", "lorif_assets", "materialize", "--config", str(self._settings)]
        command += [part for name in self._pending for part in ("--checkpoint", name)]
        command += [part for name in asked for part in ("--query-set", name)]
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603
                command, stdout=log, stderr=subprocess.STDOUT, env=self._environment(), start_new_session=True
            )
        self._processes[process] = self._pending
        self._pending = []
        try:
            # Where the training itself has a low priority, an administrator's process would get a higher one by this.
            psutil.Process(process.pid).nice(max(_NICENESS, psutil.Process().nice()))
        except psutil.Error:
            _LOG.debug("the process that attributes has no low priority", exc_info=True)

    def _environment(self) -> Mapping[str, str]:
        kept = {name: value for name, value in os.environ.items() if not _OF_TRAINING.fullmatch(name)}
        return {**kept, "LORIF_DEVICES__DEVICES": json.dumps(list(self._devices))} if self._devices else kept

    def _running(self) -> bool:
        """Whether a process attributes now."""
        self._settle()
        return bool(self._processes)

    def _settle(self) -> None:
        """Forget the processes that have ended; one that failed is told, or its checkpoints wait again.

        They do where one of them was removed meanwhile: the process may have ended by that, before it came to the others.
        """
        ended = [process for process in self._processes if process.poll() is not None]
        for process in ended:
            names = self._processes.pop(process)
            if process.returncode and set(names) <= set(self._complete()):
                _LOG.warning("attributing checkpoints failed (exit code %s); see %s", process.returncode, self.log_file)
            elif process.returncode:
                self._pending = [*dict.fromkeys([*names, *self._pending])]
