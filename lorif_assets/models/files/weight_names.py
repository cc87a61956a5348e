"""Names that trainers give weights, in folders and inside of files, and that transformers has to be told of."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorif_assets.errors import CheckpointError

INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_VARIANT = re.compile(
    r"model(?:-\d+-of-\d+)?\.(?P<of_file>[A-Za-z]\w*)(?:-\d+-of-\d+)?\.safetensors"
    r"|model\.safetensors\.index\.(?P<of_index>[A-Za-z]\w*)\.json"
)
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""What torch.compile, FSDP and activation checkpointing put before the names of a module that they wrap, at any depth."""
_OUTERMOST = "module."
"""What DistributedDataParallel, DeepSpeed and averaging put before all names; a name inside may be the same."""
_FSDP = "pytorch_model_fsdp"
"""What accelerate calls the folder of a model's shards; its names of weights are those of transformers."""
_MEGATRON = "its weights are in Megatron's shards: export them by Megatron Bridge's `AutoBridge.export_ckpt`"
_OF_MEGATRON = "common.pt"
"""What Megatron puts beside shards in torch's layout."""
_AVERAGED = "n_averaged"
"""A counter that `torch.optim.swa_utils.AveragedModel` puts beside the weights."""


def variants(folder: Path) -> list[str]:
    """Return the variants of weights in a folder that has no plain ones: `fp16` where they are in `model.fp16.safetensors`."""
    if (folder / _WEIGHTS).is_file() or (folder / INDEX).is_file():
        return []
    found = (match for file in folder.glob("model*") if (match := _VARIANT.fullmatch(file.name)))
    return sorted({match["of_file"] or match["of_index"] for match in found})


def index_of(folder: Path) -> Path:
    """Return where a folder's index of weight files is, if there is one."""
    of_variant = variants(folder)
    return folder / (f"model.safetensors.index.{of_variant[0]}.json" if of_variant else INDEX)


def loading_by_name(folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Return the arguments by which transformers finds the weights of a folder, which are in these files.

    Raises:
        CheckpointError: two of the weights have one name, once a wrapper's prefix is off.
    """
    from safetensors import safe_open

    options: dict[str, Any] = {}
    if of_variant := variants(folder):
        options["variant"] = of_variant[0]
    names: list[str] = []
    for file in files:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="np") as opened:
                names += opened.keys()
    if mapping := _unwrapping(folder, names):
        options["key_mapping"] = mapping
    return options


def unwrapped(names: Sequence[str]) -> list[str]:
    """Return the names of weights without what wrappers of the model put before them; the same ones where none did."""
    inside = [_without_inner(name) for name in names]
    prefix = _OUTERMOST * _outermost(inside)
    return [name.removeprefix(prefix) for name in inside]


def _without_inner(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _outermost(names: Sequence[str]) -> int:
    """Return how many times all names begin with the prefix of a wrapper of the whole model."""
    weights = [name for name in names if name != _AVERAGED]
    times = 0
    while weights and all(name.startswith(_OUTERMOST * (times + 1)) for name in weights):
        times += 1
    return times


def _unwrapping(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the patterns that take the prefixes of wrappers off, in the order to apply them; none where there are none."""
    bare = unwrapped(names)
    if bare == list(names):
        return {}
    if twice := [name for name, count in Counter(bare).items() if count > 1]:
        both = ", ".join(sorted(name for name, inside in zip(names, bare, strict=True) if inside == twice[0]))
        raise CheckpointError(
            f"{folder} holds the weight {twice[0]} ({len(twice)} such) more than once, under names of a wrapper: {both}. Save "
            "the model itself again, without its wrapper"
        )
    # A pattern takes one prefix off, so that it stands there as often as a name has it; a comment makes it another key.
    times = {re.escape(wrapper): max(name.count(wrapper) for name in names) for wrapper in _WRAPPERS}
    times[f"^{re.escape(_OUTERMOST)}"] = _outermost([_without_inner(name) for name in names])
    return {f"{pattern}(?#{time})": "" for pattern, count in times.items() for time in range(count)}


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
    if sharded := sorted(
        {file.parent for file in folder.glob("**/*.distcp")}, key=lambda shards: ("optim" in shards.name, shards)
    ):
        return _distributed(folder, sharded)
    if ranks := sorted(folder.glob("**/model_world_size_*_rank_*.pt")):
        return (
            "its weights are in verl's shards: join them by `python -m verl.model_merger merge --backend fsdp --local_dir "
            f"{ranks[0].parent} --target_dir` and another folder"
        )
    return _MEGATRON if list(folder.glob("**/model_optim_rng.pt")) else None


def _distributed(folder: Path, sharded: Sequence[Path]) -> str:
    """Return how weights in torch's distributed checkpoint become such as transformers reads, by what lies beside them."""
    if any((shards / _OF_MEGATRON).is_file() for shards in sharded):
        return _MEGATRON
    if sharded[0].name.startswith(_FSDP):
        return (
            f"its weights are in FSDP's shards: join them by `accelerate merge-weights {sharded[0]} {folder}`, and keep "
            "config.json beside them"
        )
    return (
        f"its weights are in torch's distributed checkpoint ({sharded[0]}), under its trainer's own names: convert them by "
        "the trainer (torchtitan's `convert_to_hf.py`), or have it save in Hugging Face's layout"
    )
