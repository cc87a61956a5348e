"""Models on the hub: which of a repository's files a model is loaded from, and a folder that holds them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lorif_assets.errors import CheckpointError, HubError
from lorif_assets.hub.names import PREFIX, HubName, is_hub_name
from lorif_assets.hub.snapshots import Snapshot, snapshot_of
from lorif_assets.models.files.chat_template_files import NAMED_TEMPLATES
from lorif_assets.models.files.weight_files import taken_names
from lorif_assets.models.files.weight_names import INDEX

_SAFETENSORS = ".safetensors"
_CACHED_MODEL = "models--"
# Configurations, tokenizers of every kind, templates and code: all but weights, and small.
_DESCRIPTION = (".json", ".jinja", ".txt", ".model", ".spm", ".tokenizer", ".tiktoken", ".py")


def described_model(name: str, revision: str | None) -> Path:
    """Return the folder in the hub's cache that holds a model's configuration and tokenizer; of its weights, those of before.

    Args:
        name: `hf://org/name@revision`, or the same without `hf://`.
        revision: what an adapter says beside the name; the name's own comes first.

    Raises:
        HubError: the name is no whole model's, or it cannot be found or asked for and is not in the cache.
    """
    found = HubName.parse(name if is_hub_name(name) else f"{PREFIX}{name}")
    if found.path or found.kind != "model":
        raise HubError(
            f"{found} is no whole repository of a model: expected {PREFIX}org/name or {PREFIX}org/name@revision"
        )
    return fetch_description(snapshot_of(replace(found, revision=found.revision or revision)))


def snapshot_at(folder: Path) -> Snapshot | None:
    """Return the snapshot of a model's repository that a folder of the hub's cache holds; None for another folder."""
    repository = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not repository.startswith(_CACHED_MODEL):
        return None
    name = repository.removeprefix(_CACHED_MODEL).replace("--", "/", 1)
    return Snapshot(HubName("model", name, folder.name), folder.name)


def fetch_folder(snapshot: Snapshot, folder: str = "") -> Path:
    """Return a folder of a repository with what a model in it is loaded from.

    Raises:
        HubError: it cannot be fetched.
        CheckpointError: it has no safetensors weights.
    """
    root = fetch_description(snapshot, folder)
    snapshot.fetch(_inside(folder, weight_names(snapshot, folder)))
    return root


def fetch_description(snapshot: Snapshot, folder: str = "") -> Path:
    """Return a folder of a repository with all of a model's files but the weights.

    Raises:
        HubError: it cannot be fetched.
    """
    names = [name for name in names_in(snapshot, folder) if name.endswith(_DESCRIPTION)]
    templates = (PurePosixPath(folder) / NAMED_TEMPLATES).as_posix()
    named = _inside(templates, names_in(snapshot, templates))
    return snapshot.fetch([*_inside(folder, names), *named]) / folder


def weight_names(snapshot: Snapshot, folder: str = "") -> list[str]:
    """Return the names of the weight files in a folder that transformers loads, sorted; its description must have been fetched.

    Repositories often hold the same weights several times, in other precisions or for other libraries.

    Raises:
        CheckpointError: there are none, or the index is damaged or not here.
    """
    root = snapshot.folder / folder
    if INDEX in names_in(snapshot, folder) and not (root / INDEX).is_file():
        raise CheckpointError(f"{root / INDEX} is not here: fetch {snapshot.name} again")
    return taken_names(root, safetensors_in(snapshot, folder))


def safetensors_in(snapshot: Snapshot, folder: str = "") -> list[str]:
    """Return the names of the safetensors files in a folder, sorted.

    Raises:
        HubError: they cannot be listed.
        CheckpointError: there are none.
    """
    names = names_in(snapshot, folder)
    found = sorted(name for name in names if name.endswith(_SAFETENSORS))
    if not found:
        others = sorted(name for name in names if not name.endswith(_DESCRIPTION) and not name.startswith("."))
        raise CheckpointError(
            f"{snapshot.uri(folder)} has no *.safetensors weights; found {', '.join(others[:5]) or 'none'}. Pickled weights "
            "could run code when loaded and are not downloaded: load them where you trust them and save them again with "
            "`save_pretrained`; or see whether a conversion is proposed (revision refs/pr/1 or the like)"
        )
    return found


def names_in(snapshot: Snapshot, folder: str = "") -> list[str]:
    """Return the names of the files in a folder of a repository, without those in folders below it.

    Raises:
        HubError: they cannot be listed.
    """
    return list(snapshot.names_by_folder.get(str(PurePosixPath(folder)), ()))


def _inside(folder: str, names: Sequence[str]) -> list[str]:
    return [(PurePosixPath(folder) / name).as_posix() for name in names]
