"""A callback of transformers' Trainer: checkpoints are registered as they are saved, and attributed in another process."""

import atexit
import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
import transformers

from lorif_assets.automation.dagster_home import dagster_home
from lorif_assets.config.settings import settings_file
from lorif_assets.data.query_files import survey_queries
from lorif_assets.errors import CheckpointError, LorifError, SettingsError
from lorif_assets.hub.snapshots import asked_once
from lorif_assets.models.devices import Devices
from lorif_assets.project import Project
from lorif_assets.stores.object_store import is_store_url

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from lorif_assets.models.files.checkpoint_files import CheckpointFiles

_LOG = logging.getLogger(__name__)
_NICENESS = 10
# Of a process that trains; another one would take itself for a part of the training.
_OF_TRAINING = re.compile(
    r"((LOCAL|GROUP|ROLE)_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|(ACCELERATE|FSDP|TORCHELASTIC)_.*"
)
# Set by torchrun where nobody has, for each of many processes; with this, the one that attributes would have one thread.
_OF_TORCHRUN, _THREADS = "TORCHELASTIC_RUN_ID", "OMP_NUM_THREADS"
# How often a checkpoint's turn comes where a process fails: the devices may have been full at the first.
_MOST_TRIES = 2


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
            wait: whether the end of training waits until all saved checkpoints are attributed; where several processes train,
                the end of the first of them.

        Raises:
            SettingsError: the file is not there, or a setting is wrong; the query sets or devices are no list of names, or a
                device is not there.
        """
        # Its import draws random numbers, which a training's first save would do otherwise.
        import dagster  # noqa: F401

        self._settings = settings_file(Path(settings) if settings is not None else None)
        if not self._settings.is_file():
            raise SettingsError(
                f"there is no settings file {self._settings}; write one (`lorif init`), or give its path"
            )
        if isinstance(query_sets, str) and query_sets != "all":
            raise SettingsError(f'`query_sets` is a list of names, or "all": write [{query_sets!r}]')
        if isinstance(devices, str):
            raise SettingsError(f"`devices` is a list of names: write [{devices!r}]")
        Devices(names=devices).available()
        self._project = Project.open(self._settings)
        self._query_sets, self._devices, self._wait = query_sets, devices, wait
        self._pending: list[str] = []
        self._tries: Counter[str] = Counter()
        self._seen: set[Path] = set()
        # All that are not known to have ended, and the checkpoints they were asked for: of two, the later may be the first to
        # bring the lake up to date.
        self._processes: dict[subprocess.Popen[bytes], Sequence[str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # A copy of the callback has started none.
        return {**self.__dict__, "_processes": {}}

    @property
    def log_file(self) -> Path:
        """What the processes that attribute print."""
        return dagster_home(self._settings) / "trainer_callback.log"

    def on_train_begin(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **others: object
    ) -> None:
        """Refuse a Trainer whose checkpoints the project would not find.

        Raises:
            SettingsError: `checkpoints.path` is not the folder that the Trainer saves to, or a query set is not there.
        """
        del control, others
        self._refuse_other_folder(Path(str(args.output_dir)).resolve())
        if not self._query_sets:
            return
        if args.save_strategy == "no":
            _LOG.warning('nothing will be attributed: the Trainer saves no checkpoints (`save_strategy` is "no")')
        if args.save_total_limit:
            _LOG.warning(
                "`save_total_limit` = %s removes checkpoints that may not be attributed yet", args.save_total_limit
            )
        if not state.is_world_process_zero:
            return
        with asked_once():
            self._refuse_unknown_query_sets()
            if state.global_step:
                # Resumed: what the training before saved last may still wait. What is up to date costs nothing, and what
                # comes later is written again.
                with _guarded("what was saved before cannot be attributed"):
                    found = self._complete()
                    self._pending = [one.name for one in found if (one.step or 0) <= state.global_step]

    def on_save(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **others: object
    ) -> None:
        """Register what was saved, and have it attributed once nothing else is."""
        del control, others
        if state.is_world_process_zero:
            self._take(_saved_to(args, state))

    def on_train_end(
        self, args: "TrainingArguments", state: "TrainerState", control: "TrainerControl", **others: object
    ) -> None:
        """Have what is left attributed too, and wait for it where that is wanted."""
        del control, others
        if not state.is_world_process_zero:
            return
        last = _saved_to(args, state)
        if last.is_dir() and last not in self._seen:
            # A Trainer that is told to end saves without a word.
            self._take(last)
        if not self._query_sets:
            return
        with _guarded("checkpoints that were saved last could not be attributed"), asked_once():
            self._settle()
            if self._pending:
                # It and one that runs wait for each other by themselves.
                self._start()
        if self._wait and args.world_size > 1:
            # The other processes would wait for this one at their next exchange, and give it up.
            atexit.register(self._wait_for_all)
        elif self._wait:
            self._wait_for_all()
        elif self._processes:
            _LOG.warning("checkpoints are still being attributed, by another process; see %s", self.log_file)

    def _refuse_other_folder(self, written: Path) -> None:
        given = self._project.settings.checkpoints
        chosen = given.path or "checkpoints"
        if given.path is None and given.registered_model:
            raise SettingsError(
                f"the Trainer saves to {written}, but the checkpoints of {self._settings} are those of "
                f"`checkpoints.registered_model`: set `checkpoints.path` to {str(written)!r} there, or in another project"
            )
        watched = chosen if is_store_url(chosen) else str(Path(self._project.settings.resolve(chosen)))
        if watched != str(written):
            raise SettingsError(
                f"the Trainer saves to {written}, but `checkpoints.path` in {self._settings} is {watched}: set it to "
                f"{str(written)!r}, or the Trainer's `output_dir` to it"
            )

    def _refuse_unknown_query_sets(self) -> None:
        with _guarded("the query sets cannot be looked at now", raising=SettingsError):
            found = survey_queries(self._project.settings)
            known = {*found.files, *found.faults}
            if self._query_sets != "all" and (unknown := [name for name in self._query_sets if name not in known]):
                raise SettingsError(f"there is no query set {unknown[0]!r}; found {', '.join(found.files) or 'none'}")

    def _take(self, folder: Path) -> None:
        self._seen.add(folder)
        with _guarded(f"the checkpoint in {folder} could not be registered"), asked_once():
            self._register(folder)

    def _wait_for_all(self) -> None:
        with _guarded("checkpoints that were saved last could not be attributed"):
            while self._processes:
                for process in self._processes:
                    process.wait()
                self._settle()
                if self._pending:
                    self._start()

    def _register(self, folder: Path) -> None:
        import dagster as dg

        from lorif_assets.assets.partitions import CHECKPOINTS_NAME, add_partitions

        found = self._project.checkpoints.look()
        saved = next((one for one in found.checkpoints if one.path.resolve() == folder), None)
        noted = next((note for note in found.notes if str(folder) in note), None)
        missing = "" if folder.is_dir() else ": it is not there; were checkpoints saved to folders below `output_dir`?"
        if fault := self._fault(saved) if saved else (noted or f"it has no configuration and weights{missing}"):
            _LOG.warning("the checkpoint in %s cannot be attributed: %s", folder, fault)
        if saved is None or fault:
            return
        with dg.DagsterInstance.from_config(str(dagster_home(self._settings))) as instance:
            add_partitions(instance, CHECKPOINTS_NAME, [one.name for one in found.checkpoints if one.is_complete()])
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

    def _complete(self) -> "list[CheckpointFiles]":
        return [one for one in self._project.checkpoints.look().checkpoints if one.is_complete()]

    def _start(self) -> None:
        there = {one.name for one in self._complete()}
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
        if _OF_TORCHRUN in os.environ and kept.get(_THREADS) == "1":
            del kept[_THREADS]
        return {**kept, "LORIF_DEVICES__DEVICES": json.dumps(list(self._devices))} if self._devices else kept

    def _running(self) -> bool:
        """Whether a process attributes now."""
        self._settle()
        return bool(self._processes)

    def _settle(self) -> None:
        """Forget the processes that have ended; of one that failed, which is told, the checkpoints wait again.

        Where one of them was removed meanwhile, it may have ended by that, before it came to the others; else each has
        another turn.
        """
        ended = {process: names for process, names in self._processes.items() if process.poll() is not None}
        failed = {process: names for process, names in ended.items() if process.returncode}
        # Where that fails, they are settled at the next look.
        there = {one.name for one in self._complete()} if failed else set()
        self._processes = {process: names for process, names in self._processes.items() if process not in ended}
        for process, names in failed.items():
            gone = [name for name in names if name not in there]
            if gone:
                _LOG.warning(
                    "the process that attributed %s ended with the exit code %s, and %s meanwhile removed; see %s",
                    ", ".join(names),
                    process.returncode,
                    f"{', '.join(gone)} {'was' if len(gone) == 1 else 'were'}",
                    self.log_file,
                )
            else:
                _LOG.warning("attributing checkpoints failed (exit code %s); see %s", process.returncode, self.log_file)
                self._tries.update(names)
            again = [name for name in names if self._tries[name] < _MOST_TRIES]
            self._pending = [*dict.fromkeys([*again, *self._pending])]


def _saved_to(args: "TrainingArguments", state: "TrainerState") -> Path:
    name = f"{transformers.trainer_utils.PREFIX_CHECKPOINT_DIR}-{state.global_step}"
    return Path(str(args.output_dir), name).resolve()


@contextmanager
def _guarded(words: str, raising: type[LorifError] | tuple[()] = ()) -> Iterator[None]:
    """Tell what fails within this, since the training is worth more than what is told of it; errors of a kind are raised."""
    try:
        yield
    except raising:
        raise
    except LorifError as error:
        _LOG.warning("%s: %s", words, error)
    except Exception:
        _LOG.exception("%s", words)
