"""Starting values of a LoRA that peft takes out of the base model's weights once more when it loads one."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.adapter_files import AdapterFiles

if TYPE_CHECKING:
    import torch
    from peft import PeftConfig

_DECOMPOSED = {"mica": "MiCA", "olora": "OLoRA", "pissa": "PiSSA"}
_LOFTQ = "loftq"
_DECOMPOSED_TYPES = ("float32", "float16", "bfloat16")


def refuse_start_without_gpu(adapter: Path, config: "PeftConfig") -> None:
    """Refuse an adapter by LoftQ, for which peft quantises the base model anew, where it cannot do so.

    Raises:
        CheckpointError: it cannot.
    """
    if getattr(config, "init_lora_weights", None) != _LOFTQ:
        return
    import torch

    has_gpu, has_library = torch.cuda.is_available() or torch.xpu.is_available(), find_spec("bitsandbytes") is not None
    if not (has_gpu and has_library):
        raise CheckpointError(
            f"the adapter {adapter} began with LoftQ (`init_lora_weights = {_LOFTQ!r}`): peft quantises its base model anew, "
            f"by bitsandbytes and on a GPU alone; found {'a' if has_gpu else 'no'} GPU and {'' if has_library else 'no '}"
            "bitsandbytes. Merge it by `merge_and_unload` on a machine with both, save the whole model, and set "
            "`checkpoints.path` to that"
        )


def refuse_start_in_type(adapter: Path, dtype: "torch.dtype") -> None:
    """Refuse an adapter whose base model has a type in which peft does not decompose its weights.

    Raises:
        CheckpointError: it has one.
    """
    start, name = AdapterFiles(adapter).config.get("init_lora_weights"), str(dtype).removeprefix("torch.")
    if isinstance(start, str) and start.lower() in _DECOMPOSED and name not in _DECOMPOSED_TYPES:
        raise CheckpointError(
            f"the adapter {adapter} began with {_DECOMPOSED[start.lower()]} (`init_lora_weights = {start!r}`), and peft "
            f"decomposes weights of its base model in {', '.join(_DECOMPOSED_TYPES)} alone, not in {name}: set "
            '`recipe.model_dtype = "float32"`'
        )
