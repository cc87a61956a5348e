"""Which folder holds the model of a step: its own, or the one further down in which peft or verl saved it.

The rules are the same for folders, repositories of the hub and object stores; each place says what lies in a folder.
"""

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

from lorif_assets.models.files.steps import is_marked
from lorif_assets.models.files.training_order import references

# Where verl keeps the model that it trains, and the one that values its answers.
_ACTOR, _CRITIC = "actor", "critic"


class HasModel(Protocol):
    """A folder of some place."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def folders(self) -> Sequence[Self]:
        """The folders in it, without those that are hidden or still being written, sorted by name."""

    @property
    def is_adapter(self) -> bool:
        """Whether it says that it is an adapter."""

    @property
    def is_whole(self) -> bool:
        """Whether it holds a configuration and the weights that belong to it."""

    @property
    def begins_model(self) -> bool:
        """Whether it holds a configuration or weights."""


Folder = TypeVar("Folder", bound=HasModel)


def holder(folder: Folder) -> Folder:
    """Return the folder itself, or the only one in it that is an adapter: peft makes one for an adapter with a name.

    Of a step's folder, it may be a whole model, one level deeper too: verl saves the actor in
    `global_step_20/actor/huggingface`.
    """
    if folder.begins_model:
        return folder
    found = [inner for inner in told_apart(folder)[0] if inner.is_adapter]
    if not found and is_marked(folder.name):
        parts = [part for part in folder.folders if part.name != _CRITIC]
        below = {part.name: [inner for inner in part.folders if inner.is_whole] for part in parts}
        whole = [part for part in parts if part.is_whole]
        found = below.get(_ACTOR) or [*whole, *(inner for models in below.values() for inner in models)]
    return found[0] if len(found) == 1 else folder


def told_apart(folder: Folder) -> tuple[list[Folder], list[Folder]]:
    """Return the folders in a folder, and apart from them the adapters that one beside them was compared with."""
    found = folder.folders
    compared = references(found, lambda one: one.is_adapter, beside=folder.is_adapter)
    return [one for one in found if one not in compared], compared
