"""The folders of a place whose files are listed all at once: which of them hold models."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, is_temporary
from lorif_assets.models.files.holding_folders import holder

SAFETENSORS = ".safetensors"


@dataclass(frozen=True)
class ListedFolder:
    """A folder, with the names of its own files, and the folders in it that are neither hidden nor still being written."""

    path: PurePosixPath
    files: "set[str]" = field(default_factory=set)
    inner: "dict[str, ListedFolder]" = field(default_factory=dict)

    @classmethod
    def root(cls, files: Iterable[str]) -> "ListedFolder":
        """Return the folder that paths of files are in."""
        root = cls(PurePosixPath())
        for file in map(PurePosixPath, files):
            if not any(map(is_temporary, file.parent.parts)):
                at = root
                for name in file.parent.parts:
                    at = at.inner.setdefault(name, cls(at.path / name))
                at.files.add(file.name)
        return root

    @property
    def name(self) -> str:
        """What it is called."""
        return self.path.name

    @property
    def folders(self) -> "list[ListedFolder]":
        """The folders in it, sorted by name."""
        return [self.inner[name] for name in sorted(self.inner)]

    @property
    def is_adapter(self) -> bool:
        """Whether it says that it is an adapter."""
        return ADAPTER_CONFIG in self.files

    @property
    def is_whole(self) -> bool:
        """Whether it holds a configuration and the weights that belong to it."""
        return ADAPTER_WEIGHTS in self.files if self.is_adapter else CONFIG in self.files and self._has_weights

    @property
    def begins_model(self) -> bool:
        """Whether it holds a configuration or weights."""
        return CONFIG in self.files or self.is_adapter or self._has_weights

    @property
    def _has_weights(self) -> bool:
        return any(name.endswith(SAFETENSORS) for name in self.files)


def model_folders(files: Iterable[str]) -> dict[str, str]:
    """Return the folders right below a place that hold models, each with the one in it, or itself, where its files are.

    Args:
        files: paths of all files, below the place.
    """
    found = {folder.name: holder(folder) for folder in ListedFolder.root(files).folders}
    return {name: held.path.as_posix() for name, held in found.items() if held.begins_model}
