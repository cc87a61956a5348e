"""Which folders below a path are checkpoints: one alone, a directory of them, or what a trainer leaves behind.

A trainer's output directory holds `checkpoint-20`, `checkpoint-40` and, after `save_model`, a model of its own.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from lorif_assets.models.files.gguf import gguf_files
from lorif_assets.models.files.holding_folders import holder, told_apart
from lorif_assets.models.files.same_files import same_files
from lorif_assets.models.files.steps import counts_epochs, is_marked, step_in_name, step_of_folder, trainer_step
from lorif_assets.models.files.tokenizer_files import tokenizer_files
from lorif_assets.models.files.training_order import (
    in_training_order,
    references_note,
    without_other_forms,
)
from lorif_assets.models.files.weight_names import other_layout

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PICKLED_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
# A trainer's own state beside the weights, in pickles too; verl's place in the data, torchtune's state.
_TRAINER_STATE = re.compile(
    r"optimizer|scheduler|scaler|rng_state|training_args|recipe_state|(?:data|dataloader)\.pt$", re.IGNORECASE
)
_TEMPORARY = re.compile(r"[._]|te?mp(?![a-z0-9])|.*\.te?mp$", re.IGNORECASE)


@dataclass(frozen=True)
class CheckpointFolder:
    """A checkpoint's folder. `path` is where its files are; `is_last` marks the model that a trainer saved at the end."""

    name: str
    path: Path
    step: int | None
    step_is_named: bool = False
    """Whether the name says the step, and not a trainer's state."""
    is_last: bool = False

    @property
    def address(self) -> str:
        """The path as text."""
        return str(self.path)

    @property
    def written(self) -> float | None:
        """When the newest of its weights was written, in seconds; None where it has none."""
        return max((file.stat().st_mtime for file in _weights(self.path)), default=None)

    def is_copy_of(self, other: Self) -> bool:
        """Whether all that the model is loaded from lies in another folder too: weights, configuration and tokenizer."""
        if not is_whole(self.path) or not self.has_weights_of(other):
            return False
        configurations = [file for name in (CONFIG, ADAPTER_CONFIG) if (file := self.path / name).is_file()]
        described = [*configurations, *tokenizer_files(self.path)]
        others = [other.path / file.relative_to(self.path) for file in described]
        return all(file.is_file() for file in others) and same_files(described, others)

    def has_weights_of(self, other: Self) -> bool:
        """Whether both have the same files of weights."""
        return same_files(_weights(self.path), _weights(other.path))

    def saved_at_end(self, step: int | None) -> Self:
        """Return the folder as that of a model which was saved at the end, after a step."""
        return replace(self, step=step, is_last=True)


@dataclass(frozen=True)
class FolderListing:
    """The checkpoints below a path, and what was passed over there, in words; `same` holds links and copies by name."""

    folders: Sequence[CheckpointFolder]
    notes: Sequence[str]
    same: Mapping[str, str] = field(default_factory=dict)


def list_folders(root: Path, base: Path | None = None) -> FolderListing:
    """Look for checkpoints in a directory; no weights are read but to compare a trainer's last model with its last step.

    Folders without configuration and weights are skipped, and so are those whose names say that they are hidden or still
    being written (`.x`, `_x`, `tmp-x`, `x.tmp`). The base model that the settings name is no copy of the step it begins as.
    """
    found, compared = _told_apart(root)
    links = _links(found)
    children = [folder for folder in found if folder not in links]
    names = frozenset(child.name for child in children)
    exported = _exported(root, children)
    is_model = _is_configured(root) and not exported
    folders: list[CheckpointFolder] = []
    notes = [f"{one} is passed over: it may not be read" for one in _visible(root) if not _is_readable(one)]
    same = {link.name: f"{link} is passed over: it is a link to {target}" for link, target in links.items()}
    notes += same.values()
    for child in children:
        inside, compared_inside = _told_apart(child)
        compared += compared_inside
        path = holder(_LocalFolder(child)).path
        # Beside a model lie folders of other kinds: an export, an optimizer's state.
        counts = _is_configured(path) if is_model else holds_model(path)
        if counts and (not is_model or is_marked(child.name) or is_whole(path)):
            step_is_named = step_in_name(child.name, names) is not None
            folders.append(CheckpointFolder(child.name, path, step_of_folder(child, names), step_is_named))
        elif counts:
            notes.append(f"{child} is passed over: it is no whole checkpoint, and its name says no step")
        elif is_marked(child.name) and is_model and any(child.glob("*.safetensors")):
            notes.append(f"{child} is passed over: it has weights and {_lacking_configuration(child, root)}")
        elif is_marked(child.name) and (not is_model or trainer_step(child) is not None):
            notes.append(f"{child} is passed over: {other_layout(child, ()) or 'it has no model'}")
        if path == child and (inner := [folder.name for folder in inside if is_whole(folder)]):
            # peft saves adapters with names beside the default one: these are no steps of one training.
            alone = counts and not any(map(is_marked, inner))
            place = f"{child / inner[0]}, say, to attribute that one alone" if alone else "it"
            notes.append(
                f"{len(inner)} checkpoint(s) inside {child} are passed over ({inner[0]} ...): set `checkpoints.path` to {place}"
            )
    if exported:
        notes.append(
            f"{exported[0]} is passed over ({len(exported)} such): it is an export beside the steps of a training. Put it into "
            "a folder of its own, and set `checkpoints.path` to that, to attribute it"
        )
    top = CheckpointFolder(root.name, root, trainer_step(root)) if is_model else None
    notes += references_note(list(map(str, compared)))
    folders, last, others = without_other_forms(folders, top, lambda one: _is_adapter(one.path))
    notes += [*others, *_mixed_counts(folders)]
    if is_model and not folders:
        return FolderListing([CheckpointFolder(root.name, root, step_of_folder(root))], notes, same)
    if last is top and top and not is_whole(root):
        notes.append(f"the model in {root} itself is passed over: it has no *.safetensors weights")
        last = None
    named = [*folders, *([last] if last else [])]
    own = next((folder for folder in named if base and folder.path.resolve() == base.resolve()), None)
    order = in_training_order(folders, last, own)
    return FolderListing(order.models, [*notes, *order.notes], {**same, **order.same})


def is_temporary(name: str) -> bool:
    """Whether a folder's name says that it is hidden or still being written (`.x`, `_x`, `tmp-x`, `x.tmp`)."""
    return _TEMPORARY.match(name) is not None


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a configuration or weights; a trainer's logs, say, do not."""
    return _is_configured(folder) or bool([*folder.glob("*.safetensors"), *pickled_weights(folder)])


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a configuration and the weights that belong to it: a model's, or an adapter's."""
    if (folder / ADAPTER_CONFIG).is_file():
        return (folder / ADAPTER_WEIGHTS).is_file()
    return ((folder / CONFIG).is_file() and bool(model_weights(folder))) or bool(gguf_files(folder))


def pickled_weights(folder: Path) -> list[str]:
    """Return the names of files that are weights in pickles."""
    files = (file.name for pattern in _PICKLED_WEIGHTS for file in folder.glob(pattern))
    return sorted(name for name in files if not _TRAINER_STATE.match(name))


def model_weights(folder: Path) -> list[Path]:
    """Return the weight files of a whole model, sorted by name; those of an adapter beside it are none of them.

    They are its safetensors files or, if there are none, its GGUF files.
    """
    has_adapter = (folder / ADAPTER_CONFIG).is_file()
    found = sorted(
        file
        for file in folder.glob("*.safetensors")
        if file.is_file() and not (has_adapter and file.name == ADAPTER_WEIGHTS)
    )
    return found or gguf_files(folder)


@dataclass(frozen=True)
class _LocalFolder:
    """A folder of this machine, in which a model may be."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def folders(self) -> "list[_LocalFolder]":
        return [_LocalFolder(inner) for inner in _folders(self.path)]

    @property
    def is_adapter(self) -> bool:
        return _is_adapter(self.path)

    @property
    def is_whole(self) -> bool:
        return is_whole(self.path)

    @property
    def begins_model(self) -> bool:
        return _is_configured(self.path) or any(self.path.glob("*.safetensors"))


def _exported(root: Path, children: Sequence[Path]) -> list[Path]:
    """Return the GGUF files that are all weights in a trainer's directory itself, where it has steps in another form."""
    weights = [] if _is_adapter(root) else model_weights(root)
    is_export = weights == gguf_files(root) and any(
        is_marked(child.name) and (_is_adapter(child) or any(child.glob("*.safetensors"))) for child in children
    )
    return weights if is_export else []


def _lacking_configuration(folder: Path, root: Path) -> str:
    lacking = ADAPTER_CONFIG if (folder / ADAPTER_WEIGHTS).is_file() else CONFIG
    return f"no {lacking}" + (f"; copy {root / lacking} there" if (root / lacking).is_file() else "")


def _told_apart(folder: Path) -> tuple[list[Path], list[Path]]:
    found, compared = told_apart(_LocalFolder(folder))
    return [one.path for one in found], [one.path for one in compared]


def _is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG).is_file()


def _links(folders: Sequence[Path]) -> dict[Path, str]:
    """Return which folders are links to another one of them, whose name it is: `latest`, say.

    A link whose name says a step, to a folder whose name says none, is none of these: it tells the step.
    """
    if not (links := [folder for folder in folders if folder.is_symlink()]):
        return {}
    own = {folder.resolve(): folder.name for folder in folders if folder not in links}
    targets = {link: own[target] for link in links if (target := link.resolve()) in own}
    return {link: name for link, name in targets.items() if is_marked(name) or not is_marked(link.name)}


def _folders(folder: Path) -> Iterator[Path]:
    return filter(_is_readable, _visible(folder))


def _visible(folder: Path) -> Iterator[Path]:
    return (inner for inner in sorted(folder.iterdir()) if inner.is_dir() and not is_temporary(inner.name))


def _is_readable(folder: Path) -> bool:
    """Whether a folder may be listed, and its files looked at: a disk's `lost+found` may not."""
    return os.access(folder, os.R_OK | os.X_OK)


def _is_configured(folder: Path) -> bool:
    return (folder / CONFIG).is_file() or (folder / ADAPTER_CONFIG).is_file() or bool(gguf_files(folder))


def _mixed_counts(folders: Sequence[CheckpointFolder]) -> list[str]:
    epochs = [folder.name for folder in folders if counts_epochs(folder.path)]
    steps = [folder.name for folder in folders if folder.step is not None and folder.name not in epochs]
    if not (epochs and steps):
        return []
    return [
        f"{epochs[0]} is ordered by its epoch and {steps[0]} by its step: the order of the checkpoints is not that of "
        "training. Give all of them names with steps, such as checkpoint-200"
    ]


def _weights(folder: Path) -> list[Path]:
    if (folder / ADAPTER_CONFIG).is_file():
        return [file for file in [folder / ADAPTER_WEIGHTS] if file.is_file()]
    return model_weights(folder)
