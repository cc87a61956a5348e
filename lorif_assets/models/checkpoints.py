"""Checkpoints on disk: finding, fingerprinting and loading causal language models and their tokenizers, safely."""

import gc
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.errors import CheckpointError
from lorif_assets.models.device_map import spread_over
from lorif_assets.models.devices import DeviceGroup
from lorif_assets.models.quantization import device_map_of, quantization, refuse_unsupported_quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "chat_template.jinja",
)
_VOCABULARY_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")
_PICKLED_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_TEMPORARY = re.compile(r"[._]|te?mp(?![a-z0-9])|.*\.te?mp$", re.IGNORECASE)
PARTITION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:+=-]*")


@dataclass(frozen=True)
class CheckpointFiles:
    """One checkpoint directory: its partition name, its folder and the training step in its name."""

    name: str
    path: Path
    step: int | None

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files, sorted by name."""
        return sorted(self.path.glob("*.safetensors"))

    @property
    def model_files(self) -> list[Path]:
        """What the model is loaded from: configuration, weights and Python code, if the checkpoint carries any."""
        return [self.path / "config.json", *self.weight_files, *sorted(self.path.glob("*.py"))]

    @property
    def tokenizer_files(self) -> list[Path]:
        """The tokenizer's files that exist."""
        return [self.path / name for name in TOKENIZER_FILES if (self.path / name).is_file()]

    def weights_hash(self) -> str:
        """Return the hash of the bytes of configuration, weights and code."""
        return _hash_files(self.model_files)

    def tokenizer_hash(self) -> str:
        """Return the hash of the tokenizer's files."""
        return _hash_files(self.tokenizer_files)

    def version(self) -> str:
        """Return what changes when a file is written: names, sizes and times, without reading any file."""
        files = [file for file in (*self.model_files, *self.tokenizer_files) if file.is_file()]
        states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return blake2b(repr(states).encode(), digest_size=16).hexdigest()

    def is_complete(self) -> bool:
        """Whether no file is missing and every weight file is whole: a trainer may still be writing it."""
        from safetensors import SafetensorError, safe_open

        try:
            self.check()
            for file in self.weight_files:
                # Opening compares the length of the file with what its header declares.
                with safe_open(file, framework="np"):
                    pass
        except (CheckpointError, SafetensorError, OSError, ValueError):
            return False
        return True

    def check(self) -> None:
        """Refuse a folder that cannot be loaded safely.

        Raises:
            CheckpointError: no configuration, no safetensors weights, a shard of them missing, or no tokenizer.
        """
        if not (self.path / "config.json").is_file():
            raise CheckpointError(
                f"{self.path} has no config.json: expected a model saved by `save_pretrained`; found {_listing(self.path)}"
            )
        if not self.weight_files:
            pickled = self._pickled_weights
            raise CheckpointError(
                f"{self.path} has no *.safetensors weights"
                + (
                    f", only {pickled[0]}, which is a pickle and could run code when loaded; "
                    "load it where you trust it and save it again with `save_pretrained`"
                    if pickled
                    else f"; found {_listing(self.path)}"
                )
            )
        index = self.path / "model.safetensors.index.json"
        if index.is_file():
            try:
                named = set(json.loads(index.read_text())["weight_map"].values())
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CheckpointError(
                    f"{index} is not an index of weight files: the copy is damaged, or still being written"
                ) from error
            missing = sorted(named - {file.name for file in self.weight_files})
            if missing:
                raise CheckpointError(
                    f"{self.path} lacks {missing[0]}, one of the {len(named)} weight files that its index names: the copy "
                    "is incomplete, or still being written"
                )
        if not any((self.path / name).is_file() for name in _VOCABULARY_FILES):
            raise CheckpointError(
                f"{self.path} has no tokenizer (tokenizer.json or the like); save it beside the weights: "
                f"`tokenizer.save_pretrained({str(self.path)!r})`"
            )

    @property
    def looks_like_checkpoint(self) -> bool:
        """Whether the folder holds a configuration or weights; a trainer's logs, say, do not."""
        return (self.path / "config.json").is_file() or bool(self.weight_files or self._pickled_weights)

    @property
    def _pickled_weights(self) -> list[str]:
        return sorted(file.name for pattern in _PICKLED_WEIGHTS for file in self.path.glob(pattern))


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """The place where a trainer writes its checkpoints: a checkpoint directory, or a directory of them.

    `trust_remote_code` runs Python code that a checkpoint carries.
    """

    path: str
    trust_remote_code: bool = False

    def find(self) -> list[CheckpointFiles]:
        """Return the checkpoints in order of step, then name.

        In a directory of checkpoints, folders without configuration and weights are skipped, and so are those whose names
        say that they are hidden or still being written (`.x`, `_x`, `tmp-x`, `x.tmp`).

        Raises:
            CheckpointError: the path does not exist, or a name cannot be a partition's.
        """
        root = Path(self.path)
        if not root.is_dir():
            raise CheckpointError(f"the checkpoint directory {root} does not exist; correct `checkpoints.path`")
        folders = (
            [root]
            if (root / "config.json").is_file()
            else [folder for folder in root.iterdir() if folder.is_dir() and not _TEMPORARY.match(folder.name)]
        )
        candidates = (CheckpointFiles(folder.name, folder, _step(folder.name)) for folder in folders)
        found = [checkpoint for checkpoint in candidates if checkpoint.looks_like_checkpoint]
        for checkpoint in found:
            if not PARTITION_NAME.fullmatch(checkpoint.name):
                raise CheckpointError(
                    f"the checkpoint folder {checkpoint.path} has a name that no partition can have; use letters, digits "
                    "and . _ - @ : + = only"
                )
        return self.in_order(found)

    @property
    def location(self) -> str:
        """Where checkpoints are looked for, in words."""
        return self.path

    @staticmethod
    def in_order(checkpoints: Sequence[CheckpointFiles]) -> list[CheckpointFiles]:
        """Return checkpoints in order of step, then name; those without a step first."""
        return sorted(checkpoints, key=lambda c: (-1 if c.step is None else c.step, c.name))

    def get(self, name: str) -> CheckpointFiles:
        """Return one checkpoint, checked.

        Raises:
            CheckpointError: it does not exist, or cannot be loaded safely.
        """
        found = {checkpoint.name: checkpoint for checkpoint in self.find()}
        if name not in found:
            raise CheckpointError(
                f"there is no checkpoint {name!r} in {self.location}; found {', '.join(found) or 'none'}. Was it moved away?"
            )
        found[name].check()
        return found[name]

    def load_model(self, files: CheckpointFiles, dtype: str, devices: DeviceGroup) -> "PreTrainedModel":
        """Return the causal language model in eval mode, spread over devices where there are several.

        Args:
            files: the checkpoint.
            dtype: a torch floating type's name, or `as_saved`.
            devices: where to put it; it takes and returns tensors on the first.

        Raises:
            CheckpointError: transformers cannot load it, weights are missing from its files, or memory does not suffice.
        """
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        refuse_unsupported_quantization(files.path, devices)
        logging.disable_progress_bar()
        if len(devices) > 1:
            # accelerate leaves reference cycles in the models it spreads: a model that nobody uses still has its memory.
            gc.collect()
        spread = spread_over(self.skeleton(files, dtype), devices, files.path) if len(devices) > 1 else None
        if spread is None and quantization(files.path):
            spread = device_map_of(devices)
        try:
            model, loading = AutoModelForCausalLM.from_pretrained(
                files.path,
                dtype="auto" if dtype == "as_saved" else dtype,
                use_safetensors=True,
                trust_remote_code=self.trust_remote_code,
                local_files_only=True,
                output_loading_info=True,
                device_map=spread,
            )
        except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise CheckpointError(f"transformers cannot load {files.path}: {error}") from error
        if missing := sorted(loading["missing_keys"]):
            raise CheckpointError(
                f"{files.path} holds no weight for {missing[0]} ({len(missing)} such), which would be random; is "
                "config.json that of these weights?"
            )
        return (model if spread else model.to(devices.first)).eval()

    def load_tokenizer(self, files: CheckpointFiles) -> "PreTrainedTokenizerBase":
        """Return the checkpoint's tokenizer.

        Raises:
            CheckpointError: transformers cannot load it.
        """
        from transformers import AutoTokenizer

        try:
            return AutoTokenizer.from_pretrained(
                files.path, trust_remote_code=self.trust_remote_code, local_files_only=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"transformers cannot load the tokenizer of {files.path}: {error}") from error

    def skeleton(self, files: CheckpointFiles, dtype: str = "as_saved") -> "PreTrainedModel":
        """Return the model without memory for its weights (meta device): its layers and their shapes."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        refuse_unsupported_quantization(files.path)
        try:
            config = AutoConfig.from_pretrained(
                files.path, local_files_only=True, trust_remote_code=self.trust_remote_code
            )
            config.dtype = config.dtype if dtype == "as_saved" else dtype
            with torch.device("meta"):
                return AutoModelForCausalLM.from_config(config, trust_remote_code=self.trust_remote_code)
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{files.path} is not a causal language model that transformers knows: {error}"
            ) from error


def vocabulary_size(model: "PreTrainedModel") -> int:
    """Return the rows of the model's input embeddings: token ids must lie below."""
    return int(model.get_input_embeddings().weight.shape[0])


def check_vocabulary(files: CheckpointFiles, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
    """Refuse a tokenizer that can produce ids the model has no embedding for.

    Raises:
        CheckpointError: the tokenizer's largest id lies beyond the embeddings.
    """
    largest, rows = max(tokenizer.get_vocab().values(), default=-1), vocabulary_size(model)
    if largest >= rows:
        raise CheckpointError(
            f"the tokenizer of {files.path} has token ids up to {largest}, but the model embeds only {rows} tokens: it "
            "belongs to another model, or the embeddings were not resized after tokens were added"
        )


def _step(name: str) -> int | None:
    return int(numbers[-1]) if (numbers := re.findall(r"\d+", name)) else None


def _hash_files(files: list[Path]) -> str:
    digest = blake2b(digest_size=16)
    for file in files:
        digest.update(f"|{file.name}|{file.stat().st_size}|".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "") if names else "an empty folder"
