"""How a checkpoint says that its model writes: nothing of it is attributed, so that no fault in it stops a model."""

import logging
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
_FILE = "generation_config.json"


def without_unsound_generation(folder: Path) -> dict[str, Any]:
    """Return the arguments by which transformers loads a model whose `generation_config.json` it refuses; none for others."""
    from transformers import GenerationConfig

    if not (folder / _FILE).is_file():
        return {}
    try:
        GenerationConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        _LOG.info("%s is not read: %s", folder / _FILE, error)
        return {"generation_config": GenerationConfig()}
    return {}
