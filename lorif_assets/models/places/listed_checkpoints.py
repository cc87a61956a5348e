"""A checkpoint on the hub or in a store: what the listing of its files tells before they are copied to this machine."""

from abc import abstractmethod
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Self

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.adapter_files import AdapterFiles
from lorif_assets.models.files.chat_template_files import NAMED_TEMPLATES
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG
from lorif_assets.models.files.tokenizer_files import TEKKEN, TOKENIZER_FILES

SAFETENSORS = ".safetensors"
_DESCRIBED = frozenset({CONFIG, ADAPTER_CONFIG, *TOKENIZER_FILES, TEKKEN})


@dataclass(frozen=True, kw_only=True)
class ListedCheckpoint(CheckpointFiles):
    """A checkpoint whose files are listed; `path` is where they are once `check` has copied them."""

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
        """Whether there are a configuration and weights of it, as of a checkpoint."""
        return bool({CONFIG, ADAPTER_CONFIG} & {*self.listed_names} and self.listed_weights)

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
