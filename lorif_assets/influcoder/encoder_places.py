"""Encoders that settings name: folders, or repositories on the hub, each at the commit that its name stands for now."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from lorif_assets.config.settings import Settings
from lorif_assets.errors import HubError, SettingsError
from lorif_assets.hub.names import PREFIX, HubName, is_hub_name
from lorif_assets.hub.snapshots import Snapshot, snapshot_of
from lorif_assets.lake.file_samples import sample_of_folder

# What sentence-transformers loads; the same weights often lie beside it in forms of other programs.
_LOADED = re.compile(r"(?!onnx/|openvino/).+\.(json|jinja|txt|model|safetensors)|\d+_\w+/pytorch_model\.bin")


def encoder_folder(settings: Settings, named: str, setting: str) -> Path:
    """Return the folder that an encoder is loaded from; of one on the hub, what is not in its cache yet is downloaded.

    Args:
        settings: of the project.
        named: a folder, relative to lorif.toml, or a name on the hub, `org/name@revision` with or without `hf://`.
        setting: what names it, for messages.

    Raises:
        SettingsError: it is neither a folder nor on the hub, or cannot be fetched.
    """
    folder = Path(settings.resolve(named))
    if folder.is_dir():
        return folder
    with _named(named, folder, setting):
        name, snapshot, paths = _on_hub(named)
        return snapshot.fetch(paths) / name.path


def encoder_in_words(settings: Settings, named: str, setting: str) -> str:
    """Return where an encoder is, and whether another may come to be at its name; nothing is downloaded.

    Raises:
        SettingsError: it is neither a folder nor on the hub.
    """
    folder = Path(settings.resolve(named))
    if folder.is_dir():
        return str(folder)
    with _named(named, folder, setting):
        name, snapshot, _ = _on_hub(named)
        return "; ".join(filter(None, (str(name), snapshot.notice)))


@contextmanager
def _named(named: str, folder: Path, setting: str) -> Iterator[None]:
    """Let an error of the hub's say what setting named what."""
    try:
        yield
    except HubError as error:
        raise SettingsError(
            f"`{setting}` names {named!r}, and there is no folder {folder} with an encoder and its tokenizer; as a name on the "
            f"Hugging Face hub: {error}"
        ) from error


def encoder_content(settings: Settings, named: str) -> str | None:
    """Return a hash of what an encoder is loaded from: samples of a folder's files, or the hub's own hashes of them.

    None where that cannot be told: nothing is there, or the hub is out of reach and was never asked.
    """
    folder = Path(settings.resolve(named))
    if folder.is_dir():
        return sample_of_folder(folder) or None
    try:
        _, snapshot, paths = _on_hub(named)
        return snapshot.content_of(paths)
    except HubError:
        return None


def _on_hub(named: str) -> tuple[HubName, Snapshot, list[str]]:
    """Return the name, its repository at one commit, and the paths of the encoder's files in it."""
    name = HubName.parse(named if is_hub_name(named) else f"{PREFIX}{named}")
    snapshot, root = snapshot_of(name), PurePosixPath(name.path)
    below = [path for path in map(PurePosixPath, snapshot.files) if path.is_relative_to(root)]
    return name, snapshot, [str(path) for path in below if _LOADED.fullmatch(path.relative_to(root).as_posix())]
