"""Names that trainers give weights, in folders and inside of files, and that transformers has to be told of."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_VARIANT = re.compile(
    r"model(?:-\d+-of-\d+)?\.(?P<of_file>[A-Za-z]\w*)(?:-\d+-of-\d+)?\.safetensors"
    r"|model\.safetensors\.index\.(?P<of_index>[A-Za-z]\w*)\.json"
)
_WRAPPED = "_orig_mod."
"""What torch.compile puts in front of the names of the module that it wraps."""


def variants(folder: Path) -> list[str]:
    """Return the variants of weights in a folder that has no plain ones: `fp16` where they are in `model.fp16.safetensors`."""
    if (folder / _WEIGHTS).is_file() or (folder / INDEX).is_file():
        return []
    found = (match for file in folder.iterdir() if (match := _VARIANT.fullmatch(file.name)))
    return sorted({match["of_file"] or match["of_index"] for match in found})


def index_of(folder: Path) -> Path:
    """Return where a folder's index of weight files is, if there is one."""
    of_variant = variants(folder)
    return folder / (f"model.safetensors.index.{of_variant[0]}.json" if of_variant else INDEX)


def loading_by_name(folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Return the arguments by which transformers finds the weights of a folder, which are in these files."""
    from safetensors import safe_open

    options: dict[str, Any] = {}
    if of_variant := variants(folder):
        options["variant"] = of_variant[0]
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="np") as opened:
                names = list(opened.keys())
                if any(_WRAPPED in name for name in names):
                    options["key_mapping"] = {re.escape(_WRAPPED): ""}
    return options


def other_layout(folder: Path, files: Sequence[Path]) -> str | None:
    """Return how weights in a layout that transformers does not read become such as it reads, or None where it is no such.

    Args:
        folder: the checkpoint's.
        files: its safetensors files.
    """
    if files and all(file.name.startswith("consolidated") for file in files):
        return (
            f"{files[0].name} is in Mistral's own layout: convert it by transformers' `convert_mistral_weights_to_hf.py`, or "
            "take the repository's model.safetensors"
        )
    if files:
        return None
    if list(folder.glob("**/*zero_pp_rank_*")):
        return (
            "its weights are in DeepSpeed's ZeRO shards: join them by `python zero_to_fp32.py . . --safe_serialization` in the "
            "folder, and keep config.json beside them"
        )
    sharded = next((file.parent for file in sorted(folder.glob("**/*.distcp"))), None)
    if sharded is not None:
        return (
            f"its weights are in FSDP's shards: join them by `accelerate merge-weights {sharded} {folder}`, and keep "
            "config.json beside them"
        )
    return None
