"""The files of one checkpoint, a whole model or an adapter on a base model: what is refused, and what identifies it."""

import json
import time
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Literal

from lorif_assets.errors import CheckpointError, HubError
from lorif_assets.lake.file_samples import sample_of, with_sample
from lorif_assets.lake.special_files import LFS_POINTER, SPECIAL, is_lfs_pointer, is_special
from lorif_assets.models.files.adapter_files import AdapterFiles, base_folder
from lorif_assets.models.files.chat_template_files import tells_turns_otherwise
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, CONFIG, model_weights, pickled_weights
from lorif_assets.models.files.context import COUNTED_FROM_PADDING
from lorif_assets.models.files.gguf import GGUF, check_gguf
from lorif_assets.models.files.hub import fetch_folder, snapshot_at
from lorif_assets.models.files.quantised_weights import refuse_unexplained_codes
from lorif_assets.models.files.steps import says_other_form
from lorif_assets.models.files.tokenizer_files import (
    SENTENCEPIECE_FILES,
    VOCABULARY_FILES,
    has_tokenizer,
    has_vocabulary,
    is_filled,
    tokenizer_code,
    tokenizer_files,
)
from lorif_assets.models.files.weight_files import all_weights, refuse_missing_weights, taken_files, weights_fault
from lorif_assets.models.files.weight_names import other_layout

_OWN_POSITIONS = "own positions"
_WHOLE_TURNS = "whole turns"
# Between two files of a checkpoint, longer than a trainer takes.
_WRITING_SECONDS = 600


@dataclass(frozen=True)
class CheckpointFiles:
    """One checkpoint: its partition name, the folder of its files and its training step.

    It is a whole model, or an adapter (`adapter_config.json`) on a base model: the one that `base_model` names by folder or
    hub name, else the one that the adapter names. `place` tells a base model, which is step 0 of what was trained from it,
    and the model that a trainer saved at the end, which may have the step of the last checkpoint. A base model has the
    tokenizer of `read_as`, the folder of what was trained from it, so that it sees the same tokens; None: its own.
    """

    name: str
    path: Path
    step: int | None
    base_model: str | None = None
    place: Literal["base", "step", "end"] = "step"
    read_as: Path | None = None

    @property
    def order(self) -> tuple[bool, int, bool, bool, str]:
        """What checkpoints are sorted by: base models, those without a step, then by step, a trainer's last one last, and name.

        Of one step, those come first that are it in another form (`checkpoint-60-awq`).
        """
        is_whole_form = self.step is not None and not says_other_form(self.name)
        return (
            self.place != "base",
            -1 if self.step is None else self.step,
            self.place == "end",
            is_whole_form,
            self.name,
        )

    @property
    def adapter(self) -> AdapterFiles | None:
        """The adapter's files, or None where the checkpoint is a whole model."""
        if self.place == "base" or not (self.path / ADAPTER_CONFIG).is_file():
            return None
        return AdapterFiles(self.path, self.base_model)

    @property
    def base(self) -> "CheckpointFiles":
        """The base model of an adapter; of a whole model, the checkpoint itself.

        Raises:
            CheckpointError: it cannot be found.
        """
        if not self.adapter:
            return self
        folder = self.adapter.base()
        return CheckpointFiles(folder.name, folder, 0, place="base")

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files of a whole model or, if there are none, the GGUF files; sorted by name."""
        return model_weights(self.path)

    @property
    def taken_files(self) -> list[Path]:
        """Those of the weight files that a whole model is loaded from.

        Raises:
            CheckpointError: the index of them cannot be read.
        """
        return taken_files(self.path, self.weight_files)

    @property
    def unread_files(self) -> list[str]:
        """The names of files in the folder that hold weights and that nothing is loaded from, sorted.

        Raises:
            CheckpointError: an adapter's base model cannot be found, or an index cannot be read.
        """
        # An adapter's base model, which may be the hub's, is asked for only where something lies beside the adapter.
        there = all_weights(self.path)
        own = self.path.resolve()
        taken = {file.name for file in self.base.taken_files if file.parent.resolve() == own} if there else set()
        return [name for name in there if name not in taken]

    @property
    def gguf_file(self) -> Path | None:
        """The GGUF file that a whole model is loaded from; None where it is loaded from safetensors."""
        return next((file for file in self.weight_files if file.suffix == GGUF), None)

    @property
    def model_files(self) -> list[Path]:
        """What the model is loaded from: configuration, weights and Python code, if there is any; of an adapter, its own.

        A GGUF file has its configuration in it, and none beside it is read.
        """
        if self.adapter:
            return self.adapter.files
        if self.gguf_file:
            return self.weight_files
        return [
            self.path / CONFIG,
            *self.weight_files,
            *sorted(file for file in self.path.glob("*.py") if file.is_file()),
        ]

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of the tokenizer: its own, that of the directory above, as trainers leave it, or the base model's.

        Raises:
            CheckpointError: it has none itself, and its base model cannot be found.
        """
        if self.read_as is not None:
            return self.read_as
        # What was exported from an adapter, or beside steps, is no tokenizer that these were trained with.
        if has_vocabulary(self.path) or (not self.adapter and has_tokenizer(self.path)):
            return self.path
        if has_vocabulary(self.path.parent):
            return self.path.parent
        if self.adapter:
            return self.base.path
        return base_folder(self.base_model, self.path, None) if self.base_model is not None else self.path

    @property
    def tokenizer_files(self) -> list[Path]:
        """The files of the tokenizer and its chat templates, and its code where the model has not the same."""
        code = [file for file in tokenizer_code(self.tokenizer_folder) if file not in self.model_files]
        return [*tokenizer_files(self.tokenizer_folder), *code]

    @property
    def remark(self) -> str:
        """What hashes say beside the files, so that results of an earlier version are out of date; empty for most models.

        Tokens of some families once had other positions than their own; of an adapter, its base model says it.
        """
        file = self.path / CONFIG
        try:
            family = json.loads(file.read_text())["model_type"] if file.is_file() else ""
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return ""
        return _OWN_POSITIONS if family in COUNTED_FROM_PADDING else ""

    @property
    def tokenizer_remark(self) -> str:
        """What the tokenizer's hash says beside its files, for the same reason; empty for most."""
        return _WHOLE_TURNS if tells_turns_otherwise(self.tokenizer_files) else ""

    @property
    def has_sentencepiece_alone(self) -> bool:
        """Whether the tokenizer's vocabulary is in a SentencePiece file, and in no other."""
        there = {name for name in VOCABULARY_FILES if (self.tokenizer_folder / name).is_file()}
        return bool(there) and there <= {*SENTENCEPIECE_FILES}

    def weights_hash(self) -> str:
        """Return the hash of the bytes of configuration, weights and code; of an adapter, those of its base model included."""
        own = _hash_files(self.model_files)
        beside = _whole_hash(self.base, self.base.version()) if self.adapter else self.remark
        return blake2b(f"{own}|{beside}".encode(), digest_size=16).hexdigest() if beside else own

    def tokenizer_hash(self) -> str:
        """Return the hash of the tokenizer's files."""
        own = _hash_files(self.tokenizer_files)
        remark = self.tokenizer_remark
        return blake2b(f"{own}|{remark}".encode(), digest_size=16).hexdigest() if remark else own

    def version(self) -> str:
        """Return what changes when a file is written: names, sizes and times, and samples of the files."""
        return with_sample(self.listing_version(), self.content_sample())

    def content_sample(self) -> str:
        """Return a hash of samples of the files."""
        samples = [sample_of(file) for file in self._files]
        return blake2b(" ".join(samples).encode(), digest_size=8).hexdigest()

    def listing_version(self) -> str:
        """Return what changes with names, sizes and times of the files."""
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in self._files]
        states += [(remark, 0, 0) for remark in (self.base.remark, self.tokenizer_remark) if remark]
        return blake2b(repr(states).encode(), digest_size=16).hexdigest()

    @property
    def _files(self) -> list[Path]:
        base = self.base.model_files if self.adapter else []
        return [file for file in (*self.model_files, *base, *self.tokenizer_files) if file.is_file()]

    @property
    def is_description(self) -> bool:
        """Whether a folder holds a model's configuration and no weights of any kind, which is enough to count what it costs."""
        weights = [*self.weight_files, *pickled_weights(self.path)]
        return not self.adapter and not weights and is_filled(self.path / CONFIG)

    def is_complete(self) -> bool:
        """Whether no file is missing and every weight file is whole: a trainer may still be writing it."""
        return self.fault() is None

    def fault(self) -> str | None:
        """Return why the checkpoint is not complete, or None if it is."""
        try:
            if self.adapter:
                self.adapter.check()
            if snapshot_at(self.base.path) and not self.base.weight_files:
                # They are downloaded when they are needed; a commit is never half written.
                return None
            self.check()
            files = [*self.model_files, *self.base.model_files]
        except CheckpointError as error:
            return str(error)
        return next(filter(None, map(weights_fault, files)), None)

    def may_be_in_writing(self) -> bool:
        """Whether a file of it was written so lately that a trainer may still be at it."""
        try:
            newest = max(path.stat().st_mtime for path in (self.path, *self.path.iterdir()))
        except OSError:
            return False
        # After a clock was set back, or on a copy from a machine whose clock is ahead, files may be of the future.
        return abs(time.time() - newest) < _WRITING_SECONDS

    def check(self) -> None:
        """Refuse a folder that cannot be loaded safely.

        Raises:
            CheckpointError: no configuration, no safetensors weights, a shard of them missing, no tokenizer, pointers in
                the place of files; or of an adapter, no base model, or a kind that cannot be merged.
        """
        if self.adapter:
            self.adapter.check()
        self.base.fetch_weights()
        self.base.check_model()
        if pointer := next(filter(is_lfs_pointer, self._files), None):
            raise CheckpointError(f"{pointer} is {LFS_POINTER}")
        if not has_tokenizer(self.tokenizer_folder):
            raise CheckpointError(
                f"{self.path} has no tokenizer (tokenizer.json or the like); save it beside the weights: "
                f"`tokenizer.save_pretrained({str(self.path)!r})`"
            )

    def check_description(self) -> None:
        """Refuse what `check` refuses, without downloading weights; configuration and tokenizer are at `path` afterwards.

        Raises:
            CheckpointError: as `check`.
        """
        self.check()

    def fetch_weights(self) -> None:
        """Download the weights of a base model in the hub's cache that holds only its description so far.

        Raises:
            CheckpointError: the download fails.
        """
        if (snapshot := snapshot_at(self.path)) and not self.weight_files:
            try:
                fetch_folder(snapshot)
            except HubError as error:
                raise CheckpointError(str(error)) from error

    def check_model(self) -> None:
        """Refuse a whole model that cannot be loaded safely, whatever its tokenizer.

        Raises:
            CheckpointError: no configuration, no safetensors or GGUF weights, a shard of them missing, the library that
                reads them, or what says how codes become numbers.
        """
        beside = self.path.iterdir() if self.path.is_dir() else ()
        if special := sorted(file.name for file in beside if is_special(file)):
            raise CheckpointError(
                f"{self.path / special[0]} is {SPECIAL}, where a checkpoint has files and folders alone"
            )
        if self.gguf_file:
            check_gguf(self.weight_files)
            return
        if advice := other_layout(self.path, self.weight_files):
            raise CheckpointError(f"{self.path} has no weights that transformers reads: {advice}")
        if not (self.path / CONFIG).is_file():
            raise CheckpointError(
                f"{self.path} has no config.json: expected a model saved by `save_pretrained`; found {_listing(self.path)}"
            )
        if not is_filled(self.path / CONFIG):
            raise CheckpointError(f"{self.path / CONFIG} is empty: the copy is damaged, or still being written")
        if not _is_json_object(self.path / CONFIG):
            raise CheckpointError(
                f"{self.path / CONFIG} is no configuration (one JSON object): the copy is damaged, or still being written"
            )
        refuse_missing_weights(self.path, self.weight_files, _listing(self.path))
        refuse_unexplained_codes(self.path, self.taken_files)


def _is_json_object(file: Path) -> bool:
    try:
        return isinstance(json.loads(file.read_text()), dict)
    except RecursionError:
        # What is nested deeper than Python follows is whole, as far as can be told.
        return True
    except (OSError, ValueError):
        return False


@lru_cache(maxsize=16)
def _whole_hash(files: CheckpointFiles, version: str) -> str:
    """Return the hash of a base model's weights, read once for all adapters on it."""
    del version  # Files that were written since are others.
    return files.weights_hash()


def _hash_files(files: list[Path]) -> str:
    digest = blake2b(digest_size=16)
    for file in files:
        digest.update(f"|{file.name}|{file.stat().st_size}|".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "") if names else "an empty folder"
