"""Weights that are kept as codes: how a configuration says that they become numbers, and codes of which it says nothing."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from lorif_assets.errors import CheckpointError

_BESIDE = "hf_quant_config.json"
"""Where ModelOpt notes how it quantised a model, in a form that transformers does not read."""
# In 8 bits lie masks of attention too, which no model is made of.
_FLOATS = ("F8_", "F6_", "F4")
_INTEGERS = ("I8", "U8")
_OF_LAYERS = "weight"


def quantization(checkpoint: Path) -> dict[str, Any] | None:
    """Return how the weights in a folder are quantised, as transformers notes it, or None where they are not."""
    file = checkpoint / "config.json"
    try:
        config = json.loads(file.read_text()) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        # Others say what is wrong with it.
        return None
    if not isinstance(config, dict):
        return None
    # Of a model that sees, some note it beside what else describes the part that reads.
    text = config.get("text_config")
    found = config.get("quantization_config") or (text.get("quantization_config") if isinstance(text, dict) else None)
    return found if isinstance(found, dict) and found else None


def refuse_unexplained_codes(folder: Path, files: Iterable[Path]) -> None:
    """Refuse weights of at most 8 bits where nothing says how they become numbers: they would be taken for these themselves.

    Args:
        folder: a whole model's.
        files: the safetensors files that it is loaded from.

    Raises:
        CheckpointError: there are such weights.
    """
    if quantization(folder):
        return
    there = [(file, file.stat()) for file in files if file.is_file()]
    if codes := sorted(name for file, state in there for name in _codes(file, state.st_size, state.st_mtime_ns)):
        beside = (
            f"; {_BESIDE} says it in a form that transformers does not read" if (folder / _BESIDE).is_file() else ""
        )
        raise CheckpointError(
            f"{folder} holds {codes[0]} ({len(codes)} such) in 8 bits or less, and its config.json has no quantization_config "
            f"by which such codes become numbers{beside}. Save the model dequantised, or set `checkpoints.path` to the one "
            "that it was quantised from"
        )


@lru_cache(maxsize=1 << 12)
def _codes(file: Path, size: int, modified: int) -> tuple[str, ...]:
    """Return the weights in a file that are codes; asked once per version, as each look at the checkpoints asks."""
    from safetensors import SafetensorError, safe_open

    del size, modified
    try:
        with safe_open(file, framework="np") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            matrices = {name: part.get_dtype() for name, part in parts.items() if len(part.get_shape()) > 1}
    except (SafetensorError, OSError, ValueError):
        # It is cut short, or still being written, which others say.
        return ()
    return tuple(
        name
        for name, dtype in matrices.items()
        if dtype.startswith(_FLOATS) or (dtype in _INTEGERS and name.endswith(_OF_LAYERS))
    )
