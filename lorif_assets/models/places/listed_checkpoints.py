"""A checkpoint on the hub or in a store: what the listing of its files tells before they are copied to this machine."""

from abc import abstractmethod
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self, TypeVar

from lorif_assets.errors import CheckpointError
from lorif_assets.lake.partition_names import partition_names
from lorif_assets.models.checkpoints import NAME_PUNCTUATION
from lorif_assets.models.files.adapter_files import AdapterFiles
from lorif_assets.models.files.chat_template_files import NAMED_TEMPLATES
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG
from lorif_assets.models.files.tokenizer_files import (
    TEKKEN,
    TOKENIZER_CONFIG,
    TOKENIZER_FILES,
    VOCABULARY_FILES,
    has_vocabulary,
)
from lorif_assets.models.places.listed_folders import SAFETENSORS

Listed = TypeVar("Listed", bound="ListedCheckpoint")

_DESCRIBED = frozenset({CONFIG, ADAPTER_CONFIG, *TOKENIZER_FILES, TEKKEN})


@dataclass(frozen=True, kw_only=True)
class ListedCheckpoint(CheckpointFiles):
    """A checkpoint whose files are listed; `path` is where they are once `check` has copied them."""

    folder_name: str
    """What the folder right below the place is called in which the model is, itself or further down."""
    step_is_named: bool = False
    """Whether a folder's name says the step, and not a trainer's state."""

    @property
    @abstractmethod
    def listed_names(self) -> Collection[str]:
        """The names of the files, those of named chat templates with their folder."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where the checkpoint is."""

    @property
    @abstractmethod
    def written(self) -> float | None:
        """When its weights were written, in seconds; None where the place does not tell."""

    @abstractmethod
    def copy_description(self) -> None:
        """Bring all but the weights to `path`.

        Raises:
            CheckpointError: they cannot be had.
        """

    @abstractmethod
    def has_same(self, other: Self, name: str) -> bool:
        """Whether a file that both have is the same in another checkpoint."""

    @property
    def adapter(self) -> AdapterFiles | None:
        """The adapter's files; None where the checkpoint is a whole model, whatever was copied of what was there before."""
        return super().adapter if self.is_adapter() else None

    def is_adapter(self) -> bool:
        """Whether there is an adapter, as the listing says."""
        return ADAPTER_CONFIG in self.listed_names

    @property
    def is_whole(self) -> bool:
        """Whether there is all of a checkpoint: a configuration, weights of it, and of a whole model a tokenizer.

        What a publisher trained with, in a format of its own (`original`), has none.
        """
        names = {*self.listed_names}
        return bool(
            {CONFIG, ADAPTER_CONFIG} & names and self.listed_weights and (self.is_adapter() or self.has_tokenizer())
        )

    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer: the names of the files say so or, of one that needs no vocabulary, its settings.

        Raises:
            CheckpointError: these cannot be read.
        """
        names = {*self.listed_names}
        if not names.isdisjoint(VOCABULARY_FILES):
            return True
        if TOKENIZER_CONFIG not in names:
            return False
        self.copy_description()
        return has_vocabulary(self.path)

    @property
    def tokenizer_remark(self) -> str:
        """What the tokenizer's hash says beside its files, whether or not they were on this machine before."""
        # Where they cannot be had, they are not known; what cannot be had is said by whoever loads it.
        with suppress(CheckpointError):
            self.check_description()
        return super().tokenizer_remark

    def is_copy_of(self, other: Self) -> bool:
        """Whether all that the model is loaded from lies in another one too: weights, configuration and tokenizer."""
        described = {name for name in self.listed_names if name in _DESCRIBED or name.startswith(f"{NAMED_TEMPLATES}/")}
        return (
            bool(described & {CONFIG, ADAPTER_CONFIG})
            and described <= {*other.listed_names}
            and all(self.has_same(other, name) for name in sorted(described))
            and self.has_weights_of(other)
        )

    def has_weights_of(self, other: Self) -> bool:
        """Whether both have the same files of weights."""
        weights = self.listed_weights
        return bool(weights) and weights == other.listed_weights and all(self.has_same(other, one) for one in weights)

    @property
    def listed_weights(self) -> list[str]:
        """The names of the files of weights, of an adapter its own, sorted."""
        names = self.listed_names
        if self.is_adapter():
            return [name for name in names if name == ADAPTER_WEIGHTS]
        return sorted(name for name in names if name.endswith(SAFETENSORS) and name != ADAPTER_WEIGHTS)

    def saved_at_end(self, step: int | None) -> Self:
        """Return the checkpoint as one that a trainer saved at the end, after a step."""
        return replace(self, step=step, place="end")


def named_apart(checkpoints: Sequence[Listed], top: Listed | None) -> list[Listed]:
    """Return the checkpoints of a place, each with a name of its own; the one above them keeps its own."""
    called = {one.path: (one.folder_name, "") for one in checkpoints} | ({top.path: (top.name, "")} if top else {})
    names = partition_names(called, NAME_PUNCTUATION)
    return [replace(one, name=names[one.path]) for one in checkpoints]
