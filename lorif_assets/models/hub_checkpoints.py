"""Checkpoints on the hub: a repository's model, or those in its folders, downloaded when first needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from lorif_assets.errors import CheckpointError, HubError
from lorif_assets.hub.names import PREFIX, HubName, is_hub_name
from lorif_assets.hub.snapshots import Snapshot, snapshot_of
from lorif_assets.models.checkpoints import PARTITION_NAME, VOCABULARY_FILES, CheckpointFiles, Checkpoints, step_in
from lorif_assets.models.hub import fetch_description, fetch_folder, names_in, safetensors_in, weight_names

_CONFIGURATION = "config.json"
_NAMES_SHOWN = 5


@dataclass(frozen=True)
class HubCheckpoint(CheckpointFiles):
    """A model in a folder of a repository at one commit; `path` is where its files are once `check` has fetched them."""

    snapshot: Snapshot
    folder: str
    """In the repository; empty: the repository itself."""

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files that the model is loaded from, sorted by name; the cache may hold others beside them."""
        with _as_checkpoint_errors():
            return [self.path / name for name in weight_names(self.snapshot, self.folder)]

    def is_complete(self) -> bool:
        """Whether no file is missing; a commit is never half written."""
        try:
            self._check_listed()
        except CheckpointError:
            return False
        return True

    def version(self) -> str:
        """Return what changes when the name stands for another commit, on every machine the same."""
        identity = [self.snapshot.name.repository, self.snapshot.commit, self.folder]
        return blake2b(repr(identity).encode(), digest_size=16).hexdigest()

    def check(self) -> None:
        """Download the files that are not here yet, and refuse those that cannot be loaded safely.

        Raises:
            CheckpointError: the download fails, or the files are not a safe checkpoint.
        """
        self._check_listed()
        with _as_checkpoint_errors():
            fetch_folder(self.snapshot, self.folder)
        super().check()

    def check_description(self) -> None:
        """Refuse what `check` refuses by the names of the files, and download all but the weights.

        Raises:
            CheckpointError: the download fails, or the files are not a safe checkpoint.
        """
        self._check_listed()
        with _as_checkpoint_errors():
            fetch_description(self.snapshot, self.folder)

    def _check_listed(self) -> None:
        with _as_checkpoint_errors():
            names = names_in(self.snapshot, self.folder)
            safetensors_in(self.snapshot, self.folder)
        place = self.snapshot.uri(self.folder)
        if _CONFIGURATION not in names:
            raise CheckpointError(f"{place} has no config.json: expected a model saved by `save_pretrained`")
        if not {*VOCABULARY_FILES} & {*names}:
            raise CheckpointError(f"{place} has no tokenizer (tokenizer.json or the like); push it beside the weights")


@dataclass(frozen=True, kw_only=True)
class HubCheckpoints(Checkpoints):
    """Checkpoints at a path: a folder, or the name of a repository on the hub (`hf://org/name@revision/folder`).

    `plain_name` is the path as `org/name`, a repository where no such folder is; empty if it has another form.
    """

    plain_name: str = ""

    @property
    def location(self) -> str:
        """Where checkpoints are looked for, in words."""
        return self._hub_name or self.path

    def find(self) -> list[CheckpointFiles]:
        """Return the checkpoints in order of step, then name; of the hub, nothing is downloaded but the list of files.

        A repository with a config.json is one checkpoint, named `name@revision`; else each of its folders with a model is one.

        Raises:
            CheckpointError: the path does not exist, or the repository cannot be read or holds no model.
        """
        text = self._hub_name
        if text is None:
            return super().find()
        try:
            with _as_checkpoint_errors():
                return self.in_order(_in_repository(snapshot_of(_model_name(text))))
        except CheckpointError as error:
            if self.plain_name:
                raise CheckpointError(f"there is no folder {self.path}, and on the hub: {error}") from error
            raise

    @property
    def notice(self) -> str | None:
        """What is to be known of the repository: that its revision may move, or that the hub was not asked.

        None where its name stands for one commit for ever, and for a folder.

        Raises:
            CheckpointError: the repository or the revision cannot be found.
        """
        with _as_checkpoint_errors():
            return snapshot_of(_model_name(self._hub_name)).notice if self._hub_name else None

    @property
    def _hub_name(self) -> str | None:
        if is_hub_name(self.path):
            return self.path
        return f"{PREFIX}{self.plain_name}" if self.plain_name and not Path(self.path).exists() else None


def _model_name(text: str) -> HubName:
    name = HubName.parse(text)
    if name.kind != "model":
        raise CheckpointError(f"{text} is a data set; expected a model, hf://{name.repository}")
    return name


def _in_repository(snapshot: Snapshot) -> list[CheckpointFiles]:
    place = PurePosixPath(snapshot.name.path)
    if _CONFIGURATION in names_in(snapshot, snapshot.name.path):
        folders = [place]
    else:
        folders = sorted(
            {
                file.parent
                for file in map(PurePosixPath, snapshot.files)
                if file.parent.parent == place and file.parent != place and _is_of_model(file.name)
            }
        )
    if not folders:
        found = [path for path in snapshot.files if not path.startswith(".")]
        more = " ..." if found[_NAMES_SHOWN:] else ""
        raise CheckpointError(
            f"{snapshot.uri(snapshot.name.path)} holds no model, and neither do the folders in it: expected config.json and "
            f"*.safetensors; the repository has {', '.join(found[:_NAMES_SHOWN]) or 'no file'}{more}"
        )
    return [_checkpoint(snapshot, "" if folder == PurePosixPath() else folder.as_posix()) for folder in folders]


def _is_of_model(file: str) -> bool:
    return file == _CONFIGURATION or file.endswith(".safetensors")


def _checkpoint(snapshot: Snapshot, folder: str) -> HubCheckpoint:
    name = snapshot.name
    if folder:
        partition, step = folder.rpartition("/")[2], step_in(folder.rpartition("/")[2])
    else:
        partition = name.repository.partition("/")[2] + (f"@{name.followed}" if name.revision else "")
        # A commit's digits are no step.
        step = None if name.is_pinned else step_in(name.revision or "")
    partition = partition.replace("/", "-")
    if not PARTITION_NAME.fullmatch(partition):
        raise CheckpointError(
            f"{snapshot.uri(folder)} would be the checkpoint {partition!r}, a name that no partition can have; names have "
            "letters, digits and . _ - @ : + = only"
        )
    return HubCheckpoint(partition, snapshot.folder / folder, step, snapshot, folder)


@contextmanager
def _as_checkpoint_errors() -> Iterator[None]:
    try:
        yield
    except HubError as error:
        raise CheckpointError(str(error)) from error
