"""Checkpoints in an object store: folders below a URL, each copied to this machine when it is first needed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from lorif_assets.errors import CheckpointError, StoreError
from lorif_assets.lake.partition_names import partition_name
from lorif_assets.models.checkpoints import NAME_PUNCTUATION, Checkpoints, Found
from lorif_assets.models.files.chat_template_files import NAMED_TEMPLATES
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, says_final
from lorif_assets.models.files.steps import is_marked, step_of_folder
from lorif_assets.models.files.tokenizer_files import VOCABULARY_FILES
from lorif_assets.stores.object_store import ObjectStore, StoredFile, is_store_url

_WEIGHTS = ".safetensors"
# Pickles, logs and a trainer's state are not copied.
_DESCRIPTION = (".json", ".jinja", ".txt", ".model", ".py")


@dataclass(frozen=True, kw_only=True)
class ObjectStoreCheckpoint(CheckpointFiles):
    """A checkpoint in a folder of an object store; `path` is where its files are once `check` has copied them."""

    store: ObjectStore
    files: tuple[StoredFile, ...]
    """As the store lists them, without the folder's name."""

    @property
    def tokenizer_remark(self) -> str:
        """What the tokenizer's hash says beside its files, whether or not they were on this machine before."""
        # Where they cannot be had, they are not known; what cannot be had is said by whoever loads it.
        with suppress(CheckpointError):
            self.check_description()
        return super().tokenizer_remark

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files that the model is loaded from, sorted by name."""
        names = [file.name for file in self.files if file.name.endswith(_WEIGHTS)]
        return [self.path / name for name in names if name != ADAPTER_WEIGHTS]

    def fault(self) -> str | None:
        """Return which file is missing, or None; an object is there whole or not at all."""
        names = {file.name for file in self.files}
        if not names & {CONFIG, ADAPTER_CONFIG}:
            return f"{self.store.url} has no config.json: expected a model saved by `save_pretrained`"
        if not any(name.endswith(_WEIGHTS) for name in names):
            return f"{self.store.url} has no *{_WEIGHTS} weights: they are still being written, or are pickles"
        if ADAPTER_CONFIG not in names and not names & {*VOCABULARY_FILES}:
            return f"{self.store.url} has no tokenizer (tokenizer.json or the like); save it beside the weights"
        try:
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
            self.store.copies(file for file in self.files if file.name.endswith((*_DESCRIPTION, _WEIGHTS)))
        super().check()

    def check_description(self) -> None:
        """Copy all but the weights.

        Raises:
            CheckpointError: a copy fails.
        """
        with _as_checkpoint_errors():
            self.store.copies(file for file in self.files if file.name.endswith(_DESCRIPTION))
        if self.adapter:
            self.base.check_description()


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
            found = _by_folder(store.files())
        models = {name: files for name, files in found.items() if _is_model(files)}
        models = {name: files for name, files in models.items() if not name.startswith((".", "_", "tmp"))}
        if not models:
            raise CheckpointError(
                f"{self.path} holds no model, and neither do the folders in it: expected config.json and *{_WEIGHTS}; correct "
                "`checkpoints.path`"
            )
        chosen = [name for name in models if name and ("" not in models or is_marked(name))]
        steps = [_checkpoint(store, name, models[name], self.base_model) for name in chosen]
        top = _checkpoint(store, "", models[""], self.base_model) if "" in models else None
        return Found(in_training_order(steps, top), ())


def in_training_order(steps: Sequence[CheckpointFiles], top: CheckpointFiles | None) -> Sequence[CheckpointFiles]:
    """Return checkpoints of one place, those that were saved at the end after the last step.

    Args:
        steps: those in its folders, of which a name may say that it is the last.
        top: the model beside the folders, if there is one.
    """
    if not steps:
        return [top] if top else []
    last = max((one.step for one in steps if one.step is not None), default=None)
    found = [
        replace(one, step=last, place="end") if one.step is None and says_final(one.name) else one for one in steps
    ]
    return [*found, replace(top, step=last, place="end")] if top else found


def _checkpoint(
    store: ObjectStore, folder: str, files: Sequence[StoredFile], base_model: str | None
) -> ObjectStoreCheckpoint:
    own = ObjectStore(f"{store.url}/{folder}" if folder else store.url, store.options)
    path = own.folder
    with _as_checkpoint_errors():
        # An adapter says which base model it is on.
        own.copies(file for file in files if file.name == ADAPTER_CONFIG)
    return ObjectStoreCheckpoint(
        partition_name(path.name, NAME_PUNCTUATION),
        path,
        step_of_folder(path),
        base_model,
        store=own,
        files=tuple(files),
    )


def _by_folder(files: Sequence[StoredFile]) -> dict[str, list[StoredFile]]:
    """Return the files of the store's folder and of those right in it, by the folder, with their own names.

    Named chat templates are those of the folder that they lie below.
    """
    found: dict[str, list[StoredFile]] = {}
    for file in files:
        folder, _, own = file.name.rpartition("/")
        above, _, last = folder.rpartition("/")
        if last == NAMED_TEMPLATES:
            folder, own = above, f"{last}/{own}"
        if "/" not in folder:
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
