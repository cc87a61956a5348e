"""The tokenizer of a model in an artifact of MLflow, which keeps it in a folder beside the model's."""

import shutil
from pathlib import Path

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.chat_template_files import named_templates
from lorif_assets.models.files.tokenizer_files import (
    TEKKEN,
    TOKENIZER_FILES,
    has_vocabulary,
    tokenizer_code,
    tokenizer_files,
)

_COMPONENT = ("components", "tokenizer")
"""Where MLflow's transformers flavour keeps it."""


def tokenizer_folder(root: Path, model: Path, name: str) -> Path | None:
    """Return the folder of an artifact that holds the tokenizer of its model, whole; None where no folder holds one.

    Args:
        root: the artifact.
        model: the folder of the model, or of the adapter.
        name: the checkpoint's, for messages.

    Raises:
        CheckpointError: several folders hold a tokenizer, and neither the model's own nor MLflow's is among them.
    """
    if has_vocabulary(model):
        return model
    found = [folder for folder in (root, *sorted(root.rglob("*"))) if folder.is_dir() and has_vocabulary(folder)]
    found = [folder for folder in found if folder.parts[-2:] == _COMPONENT] or found
    if len(found) > 1:
        raise CheckpointError(
            f"the artifact of {name} holds several tokenizers ({', '.join(str(one.relative_to(root)) for one in found)}), and "
            f"none in the model's folder ({model.relative_to(root)}) or in components/tokenizer: log it with the one that the "
            "model was trained with, in the model's folder"
        )
    return found[0] if found else None


def take_tokenizer(source: Path, folder: Path) -> None:
    """Copy a tokenizer into a model's folder, where files of another one give way to it."""
    if source == folder:
        return
    for file in (*(folder / name for name in (*TOKENIZER_FILES, TEKKEN)), *named_templates(folder)):
        file.unlink(missing_ok=True)
    for file in (*tokenizer_files(source), *tokenizer_code(source)):
        copy = folder / file.relative_to(source)
        # The model's own code is part of its weights.
        if file.suffix != ".py" or not copy.exists():
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(file, copy)
