"""What was trained from a base model: which checkpoints, and the tokenizer with which the base model reads what they read."""

import json
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.checkpoint_files import CheckpointFiles
from lorif_assets.models.files.checkpoint_folders import CONFIG

_TOKENIZER = "tokenizer.json"


def trained_from(base: Path, checkpoints: Sequence[CheckpointFiles]) -> list[CheckpointFiles]:
    """Return the checkpoints that a base model is step 0 of: adapters on it, and whole models where the settings name it."""
    trained = (one for one in checkpoints if one.place != "base" and one.path.resolve() != base.resolve())
    return [one for one in trained if _is_trained_from(base, one)]


def tokenizer_of(base: Path, trained: Sequence[CheckpointFiles]) -> Path | None:
    """Return the folder of the tokenizer that a base model reads with, as the newest of its fine-tunes does.

    None, for its own, where the newest has none besides, or one with tokens that the base model has no embedding for.

    Args:
        base: folder of the base model.
        trained: its fine-tunes' checkpoints, in order.
    """
    if not trained:
        return None
    try:
        folder = trained[-1].tokenizer_folder
        if folder == base:
            return None
        file = folder / _TOKENIZER
        stamp = file.stat().st_mtime_ns
    except (CheckpointError, OSError):
        return None
    rows = _embedding_rows(base)
    return folder if rows is not None and _largest_token(file, stamp) < rows else None


def _is_trained_from(base: Path, checkpoint: CheckpointFiles) -> bool:
    if checkpoint.adapter is None:
        return checkpoint.base_model is not None
    # An adapter without its base model is not complete, which says why.
    with suppress(CheckpointError):
        return checkpoint.adapter.base() == base
    return False


def _embedding_rows(base: Path) -> int | None:
    try:
        config = json.loads((base / CONFIG).read_text(encoding="utf-8"))
        rows = config.get("text_config", config).get("vocab_size")
    except (OSError, ValueError, AttributeError):
        return None
    return rows if isinstance(rows, int) else None


@lru_cache(maxsize=16)
def _largest_token(file: Path, modified: int) -> float:
    """Return the largest id of a tokenizer's vocabulary; infinite where the file is none."""
    del modified  # A file that was written since is another one.
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        # Unigram models list their tokens in the order of ids.
        ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return max([*ids, *(token["id"] for token in content["added_tokens"])])
    except (OSError, ValueError, KeyError, TypeError):
        return float("inf")
