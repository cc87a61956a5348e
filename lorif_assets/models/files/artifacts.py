"""What MLflow keeps of a model, sorted into one folder from which it can be loaded.

MLflow's transformers flavour keeps a whole model in `model` and its tokenizer in `components/tokenizer`. Of a PEFT model it
keeps the adapter in `peft`; its base model by name, by path in the file `MLmodel`, or in `model` with the adapter's
layers in it.
"""

from pathlib import Path

from lorif_assets.errors import CheckpointError
from lorif_assets.models.files.artifact_bases import name_base
from lorif_assets.models.files.artifact_tokenizers import take_tokenizer, tokenizer_folder
from lorif_assets.models.files.checkpoint_folders import ADAPTER_CONFIG, CONFIG


def assembled(root: Path, name: str, base_model: str | None, home: Path) -> Path:
    """Return the folder of a downloaded artifact that holds the checkpoint, with all that it needs beside it.

    Args:
        root: the artifact.
        name: the checkpoint's, for messages.
        base_model: the base model of the settings, for an adapter.
        home: the folder that it will be moved to, where an adapter's relative paths start.

    Raises:
        CheckpointError: the artifact does not hold exactly one whole model or adapter, or does not tell its tokenizer or its
            base model.
    """
    adapters = sorted(file.parent for file in root.rglob(ADAPTER_CONFIG))
    folders = adapters or sorted(file.parent for file in root.rglob(CONFIG))
    with_weights = [folder for folder in folders if any(folder.glob("*.safetensors"))] or folders
    if len(with_weights) != 1:
        found = ", ".join(str(folder.relative_to(root)) for folder in folders) or "none"
        raise CheckpointError(
            f"the artifact of {name} has to hold one folder with config.json and *.safetensors, or one adapter; found "
            f"{found}. Log the folder that `save_pretrained` wrote, or use MLflow's transformers flavour with its weights"
        )
    (model,) = with_weights
    tokenizer = tokenizer_folder(root, model, name)
    if adapters and base_model is None:
        name_base(root, model, tokenizer, name, home)
    if tokenizer:
        take_tokenizer(tokenizer, model)
    return model
