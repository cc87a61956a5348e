"""Checkpoints in an object store: folders below a URL, each copied to this machine when it is first needed."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Self

from lorif_assets.errors import CheckpointError, StoreError
from lorif_assets.lake.partition_names import partition_name
from lorif_assets.models.checkpoints import NAME_PUNCTUATION, Checkpoints, Found
from lorif_assets.models.files.chat_template_files import NAMED_TEMPLATES
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG
from lorif_assets.models.files.same_files import same_content
from lorif_assets.models.files.steps import TRAINER_STATE, is_marked, step_in_name, trainer_step
from lorif_assets.models.files.training_order import in_training_order, without_other_forms
from lorif_assets.models.places.listed_checkpoints import ListedCheckpoint, named_apart
from lorif_assets.models.places.listed_folders import SAFETENSORS, model_folders
from lorif_assets.stores.object_store import ObjectStore, StoredFile, copies_folder, is_store_url

# Pickles, logs and a trainer's state are not copied.
_DESCRIPTION = (".json", ".jinja", ".txt", ".model", ".spm", ".tokenizer", ".tiktoken", ".py")


@dataclass(frozen=True, kw_only=True)
class ObjectStoreCheckpoint(ListedCheckpoint):
    """A checkpoint in a folder of an object store."""

    store: ObjectStore
    files: tuple[StoredFile, ...]
    """As the store lists them, without the folder's name."""

    @property
    def listed_names(self) -> Collection[str]:
        """The names of the files."""
        return [file.name for file in self.files]

    @property
    def address(self) -> str:
        """The folder's URL."""
        return self.store.url

    @property
    def written(self) -> float | None:
        """When the newest of its weights was written, in seconds; None where it has none."""
        weights = {*self.listed_weights}
        return max((file.modified / 1e9 for file in self.files if file.name in weights), default=None)

    def has_same(self, other: Self, name: str) -> bool:
        """Whether a file that both have is the same in another checkpoint; of those in the store, parts are read."""
        one, two = (next(file for file in found.files if file.name == name) for found in (self, other))
        try:
            return _same_objects(self.store, one, other.store, two)
        except StoreError as error:
            raise CheckpointError(f"{error}. Did a trainer remove it meanwhile? Then look again") from error

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files that the model is loaded from, sorted by name."""
        names = [file.name for file in self.files if file.name.endswith(SAFETENSORS)]
        return [self.path / name for name in names if name != ADAPTER_WEIGHTS]

    def fault(self) -> str | None:
        """Return which file is missing, or None; an object is there whole or not at all."""
        names = {file.name for file in self.files}
        if not names & {CONFIG, ADAPTER_CONFIG}:
            return f"{self.store.url} has no config.json: expected a model saved by `save_pretrained`"
        if not any(name.endswith(SAFETENSORS) for name in names):
            return f"{self.store.url} has no *{SAFETENSORS} weights: they are still being written, or are pickles"
        try:
            if not self.is_adapter() and not self.has_tokenizer():
                return f"{self.store.url} has no tokenizer (tokenizer.json or the like); save it beside the weights"
            self.check_description()
            if not self.adapter:
                self.check_model()
        except CheckpointError as error:
            return str(error)
        return None

    def version(self) -> str:
        """Return what changes when an object is written: names, sizes and times, on every machine the same."""
        identity = (self.store.url, self.files, *filter(None, [self.tokenizer_remark]))
        own = blake2b(repr(identity).encode(), digest_size=16).hexdigest()
        return blake2b(f"{own}|{self.base.version()}".encode(), digest_size=16).hexdigest() if self.adapter else own

    def may_be_in_writing(self) -> bool:
        """Whether files may follow: a store does not say, so a checkpoint that lacks some is taken for one."""
        return True

    def check(self) -> None:
        """Copy the files that are not here yet, and refuse those that cannot be loaded safely.

        Raises:
            CheckpointError: a copy fails, or the files are not a safe checkpoint.
        """
        with _as_checkpoint_errors():
            self.store.copies(file for file in self.files if file.name.endswith((*_DESCRIPTION, SAFETENSORS)))
        super().check()

    def check_description(self) -> None:
        """Copy all but the weights, of an adapter those of its base model too.

        Raises:
            CheckpointError: a copy fails.
        """
        self.copy_description()
        if self.adapter:
            self.base.check_description()

    def copy_description(self) -> None:
        """Copy all but the weights.

        Raises:
            CheckpointError: a copy fails.
        """
        with _as_checkpoint_errors():
            self.store.copies(file for file in self.files if file.name.endswith(_DESCRIPTION))


@dataclass(frozen=True, kw_only=True)
class ObjectStoreCheckpoints(Checkpoints):
    """Checkpoints at a path: a local folder, or a URL of an object store whose credentials are in the environment."""

    def _listed(self) -> Found:
        """Return the checkpoints; of a store, nothing is copied but what adapters say of themselves.

        Each folder at the path that has a model is one, and the path itself; beside a model, folders are whose names say a
        step.

        Raises:
            CheckpointError: the path does not exist, or the store cannot be reached or holds no model.
        """
        if not is_store_url(self.path):
            return super()._listed()
        store = ObjectStore.at(self.path)
        with _as_checkpoint_errors():
            files = store.files()
        found = _by_folder(files)
        holders = {"": "", **model_folders(file.name for file in files)}
        models = {name: held for name, held in holders.items() if _is_model(found.get(held, ()))}
        if not models:
            raise CheckpointError(
                f"{self.path} holds no model, and neither do the folders in it: expected config.json and *{SAFETENSORS}; "
                "correct `checkpoints.path`"
            )
        names = [name for name in models if name]
        beside = [_checkpoint(store, name, models[name], found, self.base_model, names) for name in names]
        # Beside a model lie folders of other kinds.
        steps = [one for one in beside if "" not in models or is_marked(one.folder_name) or one.is_whole]
        top = (
            _checkpoint(store, "", "", found, self.base_model, [one.folder_name for one in steps])
            if "" in models
            else None
        )
        if top and not steps:
            return Found([top], ())
        kept, last, notes = without_other_forms(named_apart(steps, top), top, ObjectStoreCheckpoint.is_adapter)
        order = in_training_order(kept, last)
        return Found(order.models, [*notes, *order.notes], order.same)


def _checkpoint(
    store: ObjectStore,
    folder: str,
    held: str,
    found: Mapping[str, Sequence[StoredFile]],
    base_model: str | None,
    steps: Collection[str],
) -> ObjectStoreCheckpoint:
    """Return the checkpoint of a folder; `held` is the one in which its files are, and `found` the files by folder."""
    place, own = (ObjectStore(f"{store.url}/{name}" if name else store.url, store.options) for name in (folder, held))
    called, state = place.folder.name, None
    # An adapter says which base model it is on, and a trainer's state the step that a name does not say.
    with _as_checkpoint_errors():
        own.copies(file for file in found[held] if file.name == ADAPTER_CONFIG)
        # A copy of what is no longer in the store says nothing of the model there now.
        if not is_marked(folder) and (told := [file for file in found.get(folder, ()) if file.name == TRAINER_STATE]):
            state = trainer_step(place.copies(told))
    # Beside steps, the model above them is the one that was saved at the end.
    named = step_in_name(called, steps) if folder or not steps else None
    return ObjectStoreCheckpoint(
        partition_name(called, NAME_PUNCTUATION),
        own.folder,
        named if state is None else state,
        base_model,
        store=own,
        files=tuple(found[held]),
        folder_name=called,
        step_is_named=bool(folder) and named is not None,
    )


@lru_cache(maxsize=1 << 12)
def _same_objects(store: ObjectStore, file: StoredFile, other_store: ObjectStore, other: StoredFile) -> bool:
    if file.size != other.size:
        return False
    identity = (store.url, file, other_store.url, other)
    # Objects that differ do so in the first parts; of those that are the same, all parts are read, once on this machine.
    known = copies_folder() / "same" / blake2b(repr(identity).encode(), digest_size=16).hexdigest()
    if known.exists():
        return True
    with store.opened(file) as one, other_store.opened(other) as two:
        same = same_content(one, two, file.size)
    if same:
        # Where nothing can be kept, they are compared again.
        with suppress(OSError):
            known.parent.mkdir(parents=True, exist_ok=True)
            known.touch()
    return same


def _by_folder(files: Sequence[StoredFile]) -> dict[str, list[StoredFile]]:
    """Return the files by the folder that they lie in, with their own names.

    Named chat templates are those of the folder that they lie below.
    """
    found: dict[str, list[StoredFile]] = {}
    for file in files:
        folder, _, own = file.name.rpartition("/")
        above, _, last = folder.rpartition("/")
        if last == NAMED_TEMPLATES:
            folder, own = above, f"{last}/{own}"
        found.setdefault(folder, []).append(replace(file, name=own))
    return found


def _is_model(files: Sequence[StoredFile]) -> bool:
    return any(file.name in {CONFIG, ADAPTER_CONFIG} for file in files)


@contextmanager
def _as_checkpoint_errors() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise CheckpointError(str(error)) from error
