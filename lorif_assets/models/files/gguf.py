"""GGUF files as checkpoints: configuration, weights and tokenizer in one file, dequantised when it is loaded."""

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lorif_assets.errors import CheckpointError

GGUF = ".gguf"
EXTRA = "gguf"


def gguf_files(folder: Path) -> list[Path]:
    """Return the GGUF files of a folder, sorted by name."""
    return sorted(file for file in folder.glob(f"*{GGUF}") if file.is_file())


def check_gguf(files: list[Path]) -> None:
    """Refuse GGUF files that cannot be loaded as one model.

    Raises:
        CheckpointError: there are several, or the library that reads them is not installed.
    """
    if len(files) > 1:
        raise CheckpointError(
            f"{files[0].parent} has {len(files)} GGUF files ({files[0].name}, {files[1].name}"
            f"{', ...' if len(files) > 2 else ''}), and a checkpoint is one: give each a folder of its own; a model that is "
            "split over several is joined by llama.cpp's `llama-gguf-split --merge`"
        )
    if find_spec("gguf") is None:
        raise CheckpointError(
            f"{files[0]} needs the library gguf, which is not installed; install the extra `{EXTRA}`: "
            f"pip install 'lorif-assets[{EXTRA}]'"
        )


def is_whole(file: Path) -> bool:
    """Whether a GGUF file holds all the tensors that its header declares."""
    state = file.stat()
    return _reads(file, state.st_size, state.st_mtime_ns)


def named_file(file: Path | None) -> dict[str, str]:
    """Return the argument by which transformers reads a GGUF file of a folder; none where there is no such file."""
    return {"gguf_file": file.name} if file else {}


def gguf_loading(file: Path) -> dict[str, Any]:
    """Return the arguments by which transformers loads the model of a GGUF file, with dense weights on every device."""
    from transformers import GgufConfig

    return {**named_file(file), "quantization_config": GgufConfig(dequantize=True)}


@lru_cache(maxsize=64)
def _reads(file: Path, size: int, modified: int) -> bool:
    """Whether the file can be read through; asked once per version, as a vocabulary takes seconds."""
    del size, modified
    from gguf import GGUFReader

    try:
        GGUFReader(file)
    except (ValueError, IndexError, KeyError, OSError):
        return False
    return True
