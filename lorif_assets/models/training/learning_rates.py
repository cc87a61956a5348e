"""The learning rates of a training run, as the Trainer of transformers logs them in `trainer_state.json`."""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from lorif_assets.models.files.steps import TRAINER_STATE


def logged_learning_rates(folder: Path) -> Mapping[int, float]:
    """Return the learning rate by step, as far as the trainer of a checkpoint's folder logged it; empty where it tells none."""
    file = folder / TRAINER_STATE
    if not file.is_file():
        return {}
    state = file.stat()
    return _logged(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _logged(file: Path, modified: int, size: int) -> Mapping[int, float]:
    del modified, size  # A state that was written since is another one.
    try:
        logged = json.loads(file.read_text(encoding="utf-8"))["log_history"]
        return {
            int(entry["step"]): float(entry["learning_rate"])
            for entry in logged
            if "step" in entry and "learning_rate" in entry
        }
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return {}
