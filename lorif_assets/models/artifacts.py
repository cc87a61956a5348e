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
from lorif_assets.models.adapter_files import AdapterFiles, base_folder
from lorif_assets.models.checkpoint_files import TOKENIZER_FILES
from lorif_assets.models.checkpoint_folders import ADAPTER_CONFIG, CONFIG, model_weights

if TYPE_CHECKING:
    from torch import Tensor

_LOCAL_BASE = re.compile(r"^\s*local_base_model_path:\s*(.+?)\s*$", re.MULTILINE)


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
    for file in sorted(root.rglob("*")):
        if file.name in TOKENIZER_FILES and not (model / file.name).exists():
            shutil.copy(file, model / file.name)
    if adapters and base_model is None:
        _find_base(root, model, home)
    return model


def _find_base(root: Path, adapter: Path, home: Path) -> None:
    """Make sure that an adapter's base model is found from its folder, where the artifact says enough for that."""
    description = root / "MLmodel"
    local = _LOCAL_BASE.search(description.read_text()) if description.is_file() else None
    config = AdapterFiles(adapter).config
    for base in (config.get("base_model_name_or_path"), local and local[1].strip("\"'")):
        if base and _is_found({**config, "base_model_name_or_path": base}, home):
            (adapter / ADAPTER_CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": base}, indent=2))
            return
    saved = root / "model"
    if adapter != saved and (saved / CONFIG).is_file() and model_weights(saved):
        _copy_base(saved, adapter)


def _is_found(config: dict[str, object], home: Path) -> bool:
    revision = config.get("revision")
    try:
        base_folder(str(config["base_model_name_or_path"]), home, str(revision) if revision else None)
    except CheckpointError:
        return False
    return True


def _copy_base(saved: Path, adapter: Path) -> None:
    """Put the base model beside its adapter; MLflow saved it with the adapter's layers inside, which are left out."""
    from safetensors.torch import load_file, save_file

    tensors: dict[str, Tensor] = {}
    for file in model_weights(saved):
        tensors |= load_file(file)
    prefixes = {name.partition(".base_layer.")[0] for name in tensors if ".base_layer." in name}
    base = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in tensors.items()
        if ".base_layer." in name or not any(name.startswith(f"{prefix}.") for prefix in prefixes)
    }
    save_file(base, adapter / "model.safetensors", metadata={"format": "pt"})
    for file in saved.iterdir():
        is_index = file.name.endswith(".index.json")
        if file.suffix in {".json", ".py"} and not is_index and not (adapter / file.name).exists():
            shutil.copy(file, adapter / file.name)
