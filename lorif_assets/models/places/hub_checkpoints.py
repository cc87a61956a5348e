"""Checkpoints on the hub: a repository's model, or those in its folders, downloaded when first needed."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Self

from lorif_assets.errors import CheckpointError, HubError
from lorif_assets.hub.names import PREFIX, HubName, is_hub_name
from lorif_assets.hub.snapshots import Snapshot, snapshot_of
from lorif_assets.lake.partition_names import partition_name
from lorif_assets.models.checkpoints import NAME_PUNCTUATION, Found
from lorif_assets.models.files.chat_template_files import NAMED_TEMPLATES
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, CONFIG
from lorif_assets.models.files.hub import fetch_description, fetch_folder, names_in, safetensors_in, weight_names
from lorif_assets.models.files.same_files import same_files
from lorif_assets.models.files.steps import TRAINER_STATE, is_marked, step_in_name, trainer_step
from lorif_assets.models.files.training_order import TrainingOrder, in_training_order, without_other_forms
from lorif_assets.models.places.listed_checkpoints import ListedCheckpoint, named_apart
from lorif_assets.models.places.listed_folders import model_folders
from lorif_assets.models.places.store_checkpoints import ObjectStoreCheckpoints

_NAMES_SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class HubCheckpoint(ListedCheckpoint):
    """A model in a folder of a repository at one commit."""

    snapshot: Snapshot
    folder: str
    """In the repository; empty: the repository itself."""

    @property
    def listed_names(self) -> Collection[str]:
        """The names of the files."""
        with _as_checkpoint_errors():
            templates = names_in(self.snapshot, (PurePosixPath(self.folder) / NAMED_TEMPLATES).as_posix())
            return [*names_in(self.snapshot, self.folder), *(f"{NAMED_TEMPLATES}/{name}" for name in templates)]

    @property
    def address(self) -> str:
        """The place in the repository, with the commit."""
        return self.snapshot.uri(self.folder)

    @property
    def written(self) -> float | None:
        """Unknown: all files of a commit have its time."""
        return None

    def has_same(self, other: Self, name: str) -> bool:
        """Whether a file that both have is the same in another checkpoint, by the hub's hashes or in the cache."""
        paths = [(PurePosixPath(found.folder) / name).as_posix() for found in (self, other)]
        with _as_checkpoint_errors():
            known = self.snapshot.has_same(*paths)
        return same_files([self.path / name], [other.path / name]) if known is None else known

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
        self.copy_description()
        if self.adapter:
            self.base.check_description()

    def copy_description(self) -> None:
        """Download all but the weights.

        Raises:
            CheckpointError: the download fails.
        """
        with _as_checkpoint_errors():
            fetch_description(self.snapshot, self.folder)

    def _check_listed(self) -> None:
        with _as_checkpoint_errors():
            names = names_in(self.snapshot, self.folder)
            safetensors_in(self.snapshot, self.folder)
        place = self.snapshot.uri(self.folder)
        if not {CONFIG, ADAPTER_CONFIG} & {*names}:
            raise CheckpointError(f"{place} has no config.json: expected a model saved by `save_pretrained`")
        if ADAPTER_CONFIG not in names and not self.has_tokenizer():
            raise CheckpointError(f"{place} has no tokenizer (tokenizer.json or the like); push it beside the weights")


@dataclass(frozen=True, kw_only=True)
class HubCheckpoints(ObjectStoreCheckpoints):
    """Checkpoints at a path: a folder, a URL of an object store, or the name of a repository on the hub (`hf://org/name@revision/folder`).

    `plain_name` is the path as `org/name` or `gpt2`, a repository where no such folder is; empty if it has another form.
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
                order = _in_repository(snapshot, self.base_model)
                return Found(order.models, [*notes, *order.notes], order.same)
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


def _in_repository(snapshot: Snapshot, base_model: str | None) -> TrainingOrder[HubCheckpoint]:
    place = PurePosixPath(snapshot.name.path)
    is_model = bool({CONFIG, ADAPTER_CONFIG} & {*names_in(snapshot, snapshot.name.path)})
    below = (PurePosixPath(file) for file in snapshot.files)
    folders = model_folders(file.relative_to(place).as_posix() for file in below if file.is_relative_to(place))
    if not folders and not is_model:
        found = [path for path in snapshot.files if not path.startswith(".")]
        more = " ..." if found[_NAMES_SHOWN:] else ""
        raise CheckpointError(
            f"{snapshot.uri(snapshot.name.path)} holds no model, and neither do the folders in it: expected config.json and "
            f"*.safetensors; the repository has {', '.join(found[:_NAMES_SHOWN]) or 'no file'}{more}"
        )
    beside = [
        _checkpoint(snapshot, (place / name).as_posix(), (place / held).as_posix(), base_model, [*folders])
        for name, held in folders.items()
    ]
    # Beside a model lie folders of other kinds.
    steps = [one for one in beside if not is_model or is_marked(one.folder_name) or one.is_whole]
    own = snapshot.name.path
    top = _checkpoint(snapshot, own, own, base_model, [one.folder_name for one in steps]) if is_model else None
    if top and not steps:
        return TrainingOrder([top])
    kept, last, notes = without_other_forms(named_apart(steps, top), top, HubCheckpoint.is_adapter)
    order = in_training_order(kept, last)
    return replace(order, notes=[*notes, *order.notes])


def _checkpoint(
    snapshot: Snapshot, folder: str, held: str, base_model: str | None, steps: Collection[str]
) -> HubCheckpoint:
    """Return the checkpoint of a folder; `held` is the one in which its files are."""
    name = snapshot.name
    is_top = folder == name.path
    if folder:
        partition = step_name = folder.rpartition("/")[2]
    else:
        partition = name.repository.rpartition("/")[2] + (f"@{name.followed}" if name.revision else "")
        # A commit's digits are no step.
        step_name = "" if name.is_pinned else name.revision or ""
    # Beside steps, it is the model that was saved at the end.
    step = None if is_top and steps else step_in_name(step_name, steps)
    step_is_named = step is not None
    if not is_marked(step_name) and (state := _trainer_step(snapshot, folder)) is not None:
        step = state
    if ADAPTER_CONFIG in names_in(snapshot, held):
        # It says which base model it is on.
        fetch_description(snapshot, held)
    path = snapshot.folder / held
    return HubCheckpoint(
        partition_name(partition.replace("/", "-"), NAME_PUNCTUATION),
        path,
        step,
        base_model,
        snapshot=snapshot,
        folder=held,
        folder_name=PurePosixPath(folder).name or path.name,
        step_is_named=step_is_named,
    )


def _trainer_step(snapshot: Snapshot, folder: str) -> int | None:
    """Return the step that a trainer's state beside a model says; None where there is none, or it cannot be had now."""
    if TRAINER_STATE not in names_in(snapshot, folder):
        return None
    with suppress(HubError):
        snapshot.fetch([(PurePosixPath(folder) / TRAINER_STATE).as_posix()])
    return trainer_step(snapshot.folder / folder)


@contextmanager
def _as_checkpoint_errors() -> Iterator[None]:
    try:
        yield
    except HubError as error:
        raise CheckpointError(str(error)) from error
