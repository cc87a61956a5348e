"""Checkpoints on the hub: a repository's model, or those in its folders, downloaded when first needed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path, PurePosixPath

from lorif_assets.errors import CheckpointError, HubError
from lorif_assets.hub.names import PREFIX, HubName, is_hub_name
from lorif_assets.hub.snapshots import Snapshot, snapshot_of
from lorif_assets.lake.partition_names import partition_name
from lorif_assets.models.checkpoints import NAME_PUNCTUATION, Found
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, CONFIG
from lorif_assets.models.files.hub import fetch_description, fetch_folder, names_in, safetensors_in, weight_names
from lorif_assets.models.files.steps import is_marked, step_of_folder
from lorif_assets.models.files.tokenizer_files import VOCABULARY_FILES
from lorif_assets.models.places.store_checkpoints import ObjectStoreCheckpoints, in_training_order

_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class HubCheckpoint(CheckpointFiles):
    """A model in a folder of a repository at one commit; `path` is where its files are once `check` has fetched them."""

    snapshot: Snapshot
    folder: str
    """In the repository; empty: the repository itself."""

    @property
    def tokenizer_remark(self) -> str:
        """What the tokenizer's hash says beside its files, whether or not they were on this machine before."""
        # Where they cannot be had, they are not known; what cannot be had is said by whoever loads it.
        with suppress(CheckpointError):
            self.check_description()
        return super().tokenizer_remark

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files that the model is loaded from, sorted by name; the cache may hold others beside them."""
        with _as_checkpoint_errors():
            return [self.path / name for name in weight_names(self.snapshot, self.folder)]

    def fault(self) -> str | None:
        """Return which file is missing, or None; a commit is never half written."""
        try:
            self._check_listed()
            return self.base.fault() if self.adapter else None
        except CheckpointError as error:
            return str(error)

    def content_sample(self) -> str:
        """Return a hash of samples of an adapter's base model; the commit says what its own files hold."""
        return self.base.content_sample() if self.adapter else ""

    def listing_version(self) -> str:
        """Return what changes when the name stands for another commit, on every machine the same, or of an adapter its base."""
        identity = [self.snapshot.name.repository, self.snapshot.commit, self.folder]
        identity += filter(None, [self.tokenizer_remark])
        own = blake2b(repr(identity).encode(), digest_size=16).hexdigest()
        return (
            blake2b(f"{own}|{self.base.listing_version()}".encode(), digest_size=16).hexdigest()
            if self.adapter
            else own
        )

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
        if self.adapter:
            self.base.check_description()

    def _check_listed(self) -> None:
        with _as_checkpoint_errors():
            names = names_in(self.snapshot, self.folder)
            safetensors_in(self.snapshot, self.folder)
        place = self.snapshot.uri(self.folder)
        if not {CONFIG, ADAPTER_CONFIG} & {*names}:
            raise CheckpointError(f"{place} has no config.json: expected a model saved by `save_pretrained`")
        if ADAPTER_CONFIG not in names and not {*VOCABULARY_FILES} & {*names}:
            raise CheckpointError(f"{place} has no tokenizer (tokenizer.json or the like); push it beside the weights")


@dataclass(frozen=True, kw_only=True)
class HubCheckpoints(ObjectStoreCheckpoints):
    """Checkpoints at a path: a folder, a URL of an object store, or the name of a repository on the hub (`hf://org/name@revision/folder`).

    `plain_name` is the path as `org/name`, a repository where no such folder is; empty if it has another form.
    """

    plain_name: str = ""

    @property
    def location(self) -> str:
        """Where checkpoints are looked for, in words."""
        return self._hub_name or self.path

    def _listed(self) -> Found:
        """Return the checkpoints; of the hub, nothing is downloaded but the list of files and what adapters say of themselves.

        A repository with a config.json, or an adapter, is one checkpoint, named `name@revision`, and each of its folders
        with a model is one; beside a model, those are whose names say a step.

        Raises:
            CheckpointError: the path does not exist, or the repository cannot be read or holds no model.
        """
        text = self._hub_name
        if text is None:
            return super()._listed()
        try:
            with _as_checkpoint_errors():
                snapshot = snapshot_of(_model_name(text))
                notes = [snapshot.notice] if snapshot.notice else []
                return Found(_in_repository(snapshot, self.base_model), notes)
        except CheckpointError as error:
            if self.plain_name:
                raise CheckpointError(f"there is no folder {self.path}, and on the hub: {error}") from error
            raise

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


def _in_repository(snapshot: Snapshot, base_model: str | None) -> Sequence[CheckpointFiles]:
    place = PurePosixPath(snapshot.name.path)
    is_model = bool({CONFIG, ADAPTER_CONFIG} & {*names_in(snapshot, snapshot.name.path)})
    folders = sorted(
        {
            file.parent
            for file in map(PurePosixPath, snapshot.files)
            if file.parent.parent == place and file.parent != place and _is_of_model(file.name)
        }
    )
    if not folders and not is_model:
        found = [path for path in snapshot.files if not path.startswith(".")]
        more = " ..." if found[_NAMES_SHOWN:] else ""
        raise CheckpointError(
            f"{snapshot.uri(snapshot.name.path)} holds no model, and neither do the folders in it: expected config.json and "
            f"*.safetensors; the repository has {', '.join(found[:_NAMES_SHOWN]) or 'no file'}{more}"
        )
    steps = [
        _checkpoint(snapshot, folder.as_posix(), base_model)
        for folder in folders
        if not is_model or is_marked(folder.name)
    ]
    return in_training_order(steps, _checkpoint(snapshot, snapshot.name.path, base_model) if is_model else None)


def _is_of_model(file: str) -> bool:
    return file in {CONFIG, ADAPTER_CONFIG} or file.endswith(".safetensors")


def _checkpoint(snapshot: Snapshot, folder: str, base_model: str | None) -> HubCheckpoint:
    name = snapshot.name
    if folder:
        partition = folder.rpartition("/")[2]
        step = step_of_folder(Path(partition))
    else:
        partition = name.repository.partition("/")[2] + (f"@{name.followed}" if name.revision else "")
        # A commit's digits are no step.
        step = None if name.is_pinned else step_of_folder(Path(name.revision or ""))
    partition = partition_name(partition.replace("/", "-"), NAME_PUNCTUATION)
    if ADAPTER_CONFIG in names_in(snapshot, folder):
        # It says which base model it is on.
        fetch_description(snapshot, folder)
    return HubCheckpoint(partition, snapshot.folder / folder, step, base_model, snapshot=snapshot, folder=folder)


@contextmanager
def _as_checkpoint_errors() -> Iterator[None]:
    try:
        yield
    except HubError as error:
        raise CheckpointError(str(error)) from error
