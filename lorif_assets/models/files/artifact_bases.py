"""The base model of an adapter in an artifact of MLflow: by name, by path in the file `MLmodel`, or in `model`.

In `model` it has the adapter's layers in it, as MLflow saves the model that was trained.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.adapter_files import AdapterFiles, base_folder
from lorif_assets.models.files.artifact_tokenizers import take_tokenizer
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, CONFIG, model_weights
from lorif_assets.models.files.tokenizer_files import has_vocabulary
from lorif_assets.models.files.weight_files import taken_files

if TYPE_CHECKING:
    from torch import Tensor

# From each line on, to its end at most: the file is a stranger's.
_LOCAL_BASE = re.compile(r"^[ \t]*local_base_model_path:(.*)$", re.MULTILINE)
_INSIDE = "base_model.model."
_ORIGINALS = ("base_layer", "original_module", "token_adapter")
"""What peft calls a module inside of what it wraps it in, or a wrapper on the way there."""
# peft takes these starting values out of the base's weights.
_TAKEN_OUT = frozenset({"loftq", "olora", "pissa"})


def name_base(root: Path, adapter: Path, tokenizer: Path | None, name: str, home: Path) -> None:
    """Make an adapter name a base model that is found from its new home, where the artifact says enough for that.

    Args:
        root: the artifact.
        adapter: the adapter's folder in it.
        tokenizer: the folder of the adapter's tokenizer in it.
        name: the checkpoint's, for messages.
        home: the folder that the adapter will be moved to.

    Raises:
        CheckpointError: the artifact alone has the base model, and has it as the training changed it.
    """
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
        tensors = _tensors(saved)
        _refuse_changed(adapter, config, tensors, name)
        folder = _separate_base(saved, tensors, saved if has_vocabulary(saved) else tokenizer)
        base = f"../{_put(folder, home.parent)}"
    (adapter / ADAPTER_CONFIG).write_text(json.dumps({**config, "base_model_name_or_path": base}, indent=2))


def _is_found(base: str, revision: str | None, home: Path) -> bool:
    try:
        base_folder(base, home, revision)
    except CheckpointError:
        return False
    return True


def _tensors(folder: Path) -> "dict[str, Tensor]":
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    for file in taken_files(folder, model_weights(folder)):
        tensors |= load_file(file)
    return tensors


def _refuse_changed(adapter: Path, config: Mapping[str, Any], tensors: "Mapping[str, Tensor]", name: str) -> None:
    """Refuse an adapter that changes its base model besides what is its own, so that the saved one is not the base.

    Raises:
        CheckpointError: it does.
    """
    start, bias = config.get("init_lora_weights"), config.get("bias")
    if isinstance(start, str) and start.lower() in _TAKEN_OUT:
        how = f"`init_lora_weights = {start!r}`"
    elif config.get("kasa_config"):
        how = "`kasa_config`"
    elif bias not in {None, "none"} and _holds_biases(adapter, tensors):
        how = f"`bias = {bias!r}`"
    else:
        return
    raise CheckpointError(
        f"the artifact of {name} holds an adapter with {how}, which changes weights of the base model itself, and the base "
        "model as these changes left it: set `checkpoints.base_model` to the folder, or the name on the hub, of the model that "
        "the training began with"
    )


def _holds_biases(adapter: Path, tensors: "Mapping[str, Tensor]") -> bool:
    """Whether an adapter's file has biases of the base model, which are trained where they are."""
    from safetensors import safe_open

    file = AdapterFiles(adapter).weights
    if not file.is_file():
        return False
    with safe_open(file, framework="np") as opened:
        names: list[str] = opened.keys()
    return any(name.endswith(".bias") and name.removeprefix(_INSIDE) in tensors for name in names)


def _separate_base(saved: Path, tensors: "Mapping[str, Tensor]", tokenizer: Path | None) -> Path:
    """Write a base model, which MLflow saved with the adapter's layers inside, into a folder of its own beside it."""
    from safetensors.torch import save_file

    folder = saved.with_name("base")
    folder.mkdir()
    save_file(_originals(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    for file in sorted(saved.iterdir()):
        if file.suffix in {".json", ".py"} and not file.name.endswith(".index.json"):
            shutil.copy(file, folder / file.name)
    if tokenizer:
        take_tokenizer(tokenizer, folder)
    return folder


def _originals(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Return the tensors of the modules that an adapter's layers wrap, and of those that none wraps, by their own names.

    Of layers that wrap one another, the innermost is the base's: `experts.base_layer.lora_A` is an adapter's.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    for wrapped in _ORIGINALS:
        if wrapped in parts and "" not in parts[wrapped]:
            return _originals(parts[wrapped])
    return {
        f"{part}.{name}" if name else part: tensor
        for part, below in parts.items()
        for name, tensor in ({"": below[""]} if "" in below else _originals(below)).items()
    }


def _put(folder: Path, cache: Path) -> str:
    """Move a base model into the cache, once for all of its adapters; return its name there, which tells its weights."""
    name = f"base-{CheckpointFiles('base', folder, 0, place='base').weights_hash()[:8]}"
    try:
        folder.replace(cache / name)
    except OSError:
        # Another version, or another process, put it there.
        if not (cache / name).is_dir():
            raise
    return name
