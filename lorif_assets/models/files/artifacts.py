"""What MLflow keeps of a model, sorted into one folder from which it can be loaded.

MLflow's transformers flavour keeps a whole model in `model` and its tokenizer in `components/tokenizer`. Of a PEFT model it
keeps the adapter in `peft`; its base model by name, by path in the file `MLmodel`, or in `model` with the adapter's
layers in it.
"""

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.adapter_files import AdapterFiles, base_folder
from lorif_assets.models.files.chat_template_files import NAMED_TEMPLATES
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, CONFIG, model_weights
from lorif_assets.models.files.tokenizer_files import TOKENIZER_FILES
from lorif_assets.models.files.weight_files import taken_files

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPED = re.compile(r"\.(?:base_layer|original_module)\.")
# From each line on, to its end at most: the file is a stranger's.
_LOCAL_BASE = re.compile(r"^[ \t]*local_base_model_path:(.*)$", re.MULTILINE)


def assembled(root: Path, name: str, base_model: str | None, home: Path) -> Path:
    """Return the folder of a downloaded artifact that holds the checkpoint, with all that it needs beside it.

    Args:
        root: the artifact.
        name: the checkpoint's, for messages.
        base_model: the base model of the settings, for an adapter.
        home: the folder that it will be moved to, where an adapter's relative paths start.

    Raises:
        CheckpointError: the artifact does not hold exactly one whole model or adapter.
    """
    adapters = sorted(file.parent for file in root.rglob(ADAPTER_CONFIG))
    folders = adapters or sorted(file.parent for file in root.rglob(CONFIG))
    with_weights = [folder for folder in folders if any(folder.glob("*.safetensors"))] or folders
    if len(with_weights) != 1:
        found = ", ".join(str(folder.relative_to(root)) for folder in folders) or "none"
        raise CheckpointError(
            f"the artifact of {name} has to hold one folder with config.json and *.safetensors, or one adapter; found "
            f"{found}. Log the folder that `save_pretrained` wrote, or use MLflow's transformers flavour with its weights"
        )
    (model,) = with_weights
    _add_tokenizer(root, model)
    if adapters and base_model is None:
        _find_base(root, model, home)
    return model


def _add_tokenizer(root: Path, folder: Path) -> None:
    """Copy the files of a tokenizer, which may lie anywhere in an artifact, into a folder as far as it lacks them."""
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        named = file.parent.name == NAMED_TEMPLATES
        copy = folder / NAMED_TEMPLATES / file.name if named else folder / file.name
        if (named or file.name in TOKENIZER_FILES) and not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(file, copy)


def _find_base(root: Path, adapter: Path, home: Path) -> None:
    """Make an adapter name a base model that is found from its new home, where the artifact says enough for that."""
    description = root / "MLmodel"
    local = _LOCAL_BASE.search(description.read_text(errors="replace")) if description.is_file() else None
    config = AdapterFiles(adapter).config
    saved = root / "model"
    for base in (config.get("base_model_name_or_path"), local and local[1].strip(" \t\r\"'")):
        if base and _is_found(str(base), config.get("revision"), home):
            break
    else:
        if adapter == saved or not (saved / CONFIG).is_file() or not model_weights(saved):
            return
        base = f"../{_separate_base(saved, home.parent)}"
    (adapter / ADAPTER_CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": base}, indent=2))


def _is_found(base: str, revision: str | None, home: Path) -> bool:
    try:
        base_folder(base, home, revision)
    except CheckpointError:
        return False
    return True


def _separate_base(saved: Path, cache: Path) -> str:
    """Put a base model, which MLflow saved with the adapter's layers inside, into the cache once for all of its adapters.

    Returns:
        Its folder's name there, which tells its weights.
    """
    from safetensors.torch import load_file, save_file

    tensors: dict[str, Tensor] = {}
    for file in taken_files(saved, model_weights(saved)):
        tensors |= load_file(file)
    wrapped = {name[: found.start()] for name in tensors if (found := _WRAPPED.search(name))}
    base = {
        _WRAPPED.sub(".", name): tensor
        for name, tensor in tensors.items()
        if _WRAPPED.search(name) or not any(name.startswith(f"{prefix}.") for prefix in wrapped)
    }
    folder = saved.with_name("base")
    folder.mkdir()
    save_file(base, folder / "model.safetensors", metadata={"format": "pt"})
    for file in sorted(saved.iterdir()):
        if file.suffix in {".json", ".py"} and not file.name.endswith(".index.json"):
            shutil.copy(file, folder / file.name)
    _add_tokenizer(saved.parent, folder)
    name = f"base-{CheckpointFiles('base', folder, 0, place='base').weights_hash()[:8]}"
    try:
        folder.replace(cache / name)
    except OSError:
        # Another version, or another process, put it there.
        if not (cache / name).is_dir():
            raise
    return name
