"""The weight files of a model's folder: which ones it is loaded from, what is missing, and which lie there unread."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CONFIG, pickled_weights
from lorif_assets.models.files.gguf import GGUF, is_whole
from lorif_assets.models.files.weight_names import INDEX, index_of, variants

_WHOLE = "model.safetensors"
_SAFETENSORS = ".safetensors"
_OF_INDICES = ".index.json"
_PATTERNS = ("*.safetensors", f"*{GGUF}", "*.h5", "*.msgpack")
"""Weights by their names, beside those in pickles."""
_NAMES_SHOWN = 3
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def taken_files(folder: Path, files: Sequence[Path]) -> list[Path]:
    """Return those of a model's weight files that it is loaded from, as transformers chooses among them.

    They are what config.json names, else the file that holds all weights, else those that the index names.

    Raises:
        CheckpointError: the index cannot be read.
    """
    by_name = {file.name: file for file in files}
    taken = taken_names(folder, by_name, whole_file(folder), index_of(folder).name)
    return [by_name[name] for name in taken]


def taken_names(folder: Path, names: Collection[str], whole: str = _WHOLE, index: str = INDEX) -> list[str]:
    """Return those of the names of a model's weight files that it is loaded from, sorted.

    Args:
        folder: where its configuration and its index are.
        names: of all its weight files.
        whole: what the file is called that holds all weights, where configuration and names say nothing else.
        index: what the index is called.

    Raises:
        CheckpointError: the index cannot be read.
    """
    named = _named_by_config(folder) or whole
    if named in names:
        return [named]
    if named.endswith(_OF_INDICES):
        index = named
    elif whole in names:
        return [whole]
    return sorted(_indexed(folder / index).intersection(names) if (folder / index).is_file() else names)


def whole_file(folder: Path) -> str:
    """Return the name of the file that holds all weights, where there is one."""
    of_variant = variants(folder)
    return f"model.{of_variant[0]}.safetensors" if of_variant else _WHOLE


def all_weights(folder: Path) -> list[str]:
    """Return the names of a folder's files that hold weights, in whatever form, sorted; those of an adapter are left out."""
    found = {file.name for pattern in _PATTERNS for file in folder.glob(pattern) if file.is_file()}
    adapter = {ADAPTER_WEIGHTS} if (folder / ADAPTER_CONFIG).is_file() else set()
    return sorted({*found, *pickled_weights(folder)} - adapter)


def in_short(names: Sequence[str]) -> str:
    """Return the first names of a list, and how many there are besides."""
    more = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def refuse_missing_weights(folder: Path, files: Sequence[Path], found: str) -> None:
    """Refuse a folder without weights that can be loaded safely, or without some of them.

    Args:
        folder: a whole model's.
        files: its safetensors files.
        found: what is in the folder, in words.

    Raises:
        CheckpointError: no safetensors, several variants of them, no index where one is due, or a file that it names is
            not there.
    """
    if not files:
        pickled = pickled_weights(folder)
        raise CheckpointError(
            f"{folder} has no *.safetensors weights"
            + (
                f", only {pickled[0]}, which is a pickle and could run code when loaded; "
                "load it where you trust it and save it again with `save_pretrained`"
                if pickled
                else f"; found {found}"
            )
        )
    if len(of_variants := variants(folder)) > 1:
        raise CheckpointError(
            f"{folder} holds the weights as {' and as '.join(of_variants)}: keep those of one, or put the model in "
            f"{_WHOLE}"
        )
    names = {file.name for file in files}
    index = index_of(folder)
    if not index.is_file():
        if files[0].name.startswith("model-") and _WHOLE not in names:
            raise CheckpointError(
                f"{folder} lacks {index.name}, which says in which of its {len(files)} weight files each weight is: the "
                "copy is incomplete, or still being written"
            )
        return
    indexed = _indexed(index)
    if not (missing := sorted(indexed - names)):
        return
    whole = whole_file(folder)
    beside = f". Or is {whole}, which lies beside, the model? Then delete {index.name}" if whole in names else ""
    raise CheckpointError(
        f"{folder} lacks {missing[0]}, one of the {len(indexed)} weight files that its index names: the copy is incomplete, "
        f"or still being written{beside}"
    )


def weights_fault(file: Path) -> str | None:
    """Return why a file of weights is not whole, or None if it is, or holds none."""
    from safetensors import SafetensorError, safe_open

    if file.suffix == GGUF:
        return None if is_whole(file) else f"{file} is cut short, or still being written"
    if file.suffix != _SAFETENSORS:
        return None
    try:
        # Opening compares the length of the file with what its header declares.
        with safe_open(file, framework="np") as opened:
            weights = (name for name in opened.keys() if name.endswith(".weight"))  # noqa: SIM118
            empty = sorted(name for name in weights if 0 in opened.get_slice(name).get_shape())
    except (SafetensorError, OSError, ValueError) as error:
        if "too large" in str(error):
            return f"{file} is no model: {error}"
        return f"{file} is cut short, or still being written"
    if not empty:
        return None
    return (
        f"{file} has no numbers for {empty[0]} ({len(empty)} such), as where weights are saved under DeepSpeed's ZeRO-3 that "
        "were not gathered: set `stage3_gather_16bit_weights_on_model_save`, or join the shards in the folder by `python "
        "zero_to_fp32.py . . --safe_serialization`"
    )


def saved_type(files: Sequence[Path]) -> str | None:
    """Return the name of torch's floating type that weights are saved in, by the first of them; None where none can be read."""
    from safetensors import SafetensorError, safe_open

    for file in files:
        try:
            with safe_open(file, framework="np") as opened:
                types = (opened.get_slice(name).get_dtype() for name in opened.keys())  # noqa: SIM118
                if found := next((_FLOATS[name] for name in types if name in _FLOATS), None):
                    return found
        except (SafetensorError, OSError):
            # A GGUF file, or one that is still being written.
            return None
    return None


def _indexed(index: Path) -> set[str]:
    """Return the names of the weight files in an index."""
    try:
        return set(json.loads(index.read_text())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{index} is not an index of weight files: the copy is damaged, or still being written"
        ) from error


def _named_by_config(folder: Path) -> str | None:
    """Return the file of weights, or the index, that a configuration names (`transformers_weights`)."""
    file = folder / CONFIG
    try:
        # A pipe in its place would be waited for.
        named = json.loads(file.read_text()).get("transformers_weights") if file.is_file() else None
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return named if isinstance(named, str) else None
