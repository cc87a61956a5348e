"""The bi-encoder: one sentence-transformers model for queries and examples, optionally with a head for each.

Imported inside steps only.
"""

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from jaxtyping import Float
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Router, StaticEmbedding
from torch import Tensor
from torch.nn import functional

from lorif_assets.errors import SettingsError
from lorif_assets.influcoder.sampling import Role
from lorif_assets.scratch_folders import scratch_folder

_EPOCH = (1980, 1, 1, 0, 0, 0)
_BATCH_TEXTS = 64
_TASKS = {Role.ANCHOR: "query", Role.POOL: "document"}


@dataclass(frozen=True)
class TextEncoder:
    """A model that turns texts into embeddings, mean-pooled over tokens."""

    model: SentenceTransformer

    @classmethod
    def load(
        cls, source: str | Path, length: int, device: torch.device, setting: str = "influcoder.encoder"
    ) -> "TextEncoder":
        """Load an encoder from a folder or the hub.

        Args:
            source: a folder, else a name on the hub.
            length: tokens that it reads of a text, within the model's own limit.
            device: where to put it.
            setting: what names it, for messages.

        Raises:
            SettingsError: it is neither a folder nor on the hub, or is no text encoder.
        """
        try:
            # Weights that a bare encoder lacks (an unused pooler, say) are drawn with a seed: always the same.
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = SentenceTransformer(
                    str(source), device=str(device), model_kwargs={"use_safetensors": True}, trust_remote_code=False
                )
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"`{setting}` names {str(source)!r}, which sentence-transformers cannot load; give a folder with an "
                f"encoder and its tokenizer, or the name of one on the Hugging Face hub: {error}"
            ) from error
        if isinstance(model[0], StaticEmbedding):
            # It has no length limit, and none can be set.
            model[0].tokenizer.enable_truncation(length)
        else:
            model.max_seq_length = min(length, model.max_seq_length or length)
        return cls(model.eval())

    @classmethod
    def from_archive(cls, archive: bytes, length: int, device: torch.device) -> "TextEncoder":
        """Load an encoder from what `archive` returned."""
        with scratch_folder() as folder:
            with zipfile.ZipFile(io.BytesIO(archive)) as packed:
                packed.extractall(folder)
            return cls.load(str(folder), length, device)

    @property
    def has_heads(self) -> bool:
        """Whether queries and examples pass through a linear map of their own after the encoder."""
        return isinstance(self.model[-1], Router)

    def with_heads(self, heads: bool) -> "TextEncoder":
        """Return the encoder with or without two heads; new heads change nothing until they are trained."""
        if heads == self.has_heads:
            return self
        modules = list(self.model.children())
        if heads:
            modules.append(Router.for_query_document([_identity(self.width)], [_identity(self.width)], "document"))
        else:
            modules.pop()
        return TextEncoder(SentenceTransformer(modules=modules, device=str(self.model.device)).eval())

    def archive(self) -> bytes:
        """Return the model's folder as one ZIP file, which `content_hash` names."""
        with scratch_folder() as folder:
            self.save(folder)
            packed = io.BytesIO()
            with zipfile.ZipFile(packed, "w") as archive:
                for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                    archive.writestr(zipfile.ZipInfo(str(file.relative_to(folder)), _EPOCH), file.read_bytes())
        return packed.getvalue()

    def save(self, folder: Path) -> None:
        """Write the model to a folder that sentence-transformers can load."""
        self.model.save_pretrained(str(folder), create_model_card=False)

    def content_hash(self) -> str:
        """Return the hash of the weights."""
        digest = blake2b(digest_size=16)
        for name, weight in self.model.state_dict().items():
            digest.update(f"|{name}|{weight.dtype}|{list(weight.shape)}|".encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def width(self) -> int:
        """Numbers of an embedding."""
        return int(self.model.get_embedding_dimension() or 0)

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """What training changes."""
        return list(self.model.parameters())

    def embed(self, texts: Sequence[str], role: Role) -> Float[Tensor, "n h"]:
        """Return unit-norm FP32 embeddings on the CPU, without gradient."""
        embeddings = torch.empty(len(texts), self.width)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with torch.inference_mode():
            for start in range(0, len(order), _BATCH_TEXTS):
                batch = order[start : start + _BATCH_TEXTS]
                embeddings[batch] = functional.normalize(
                    self.forward([texts[i] for i in batch], role).float(), dim=1
                ).cpu()
        return embeddings

    def forward(self, texts: Sequence[str], role: Role) -> Float[Tensor, "n h"]:
        """Return the model's own embeddings, with gradient if enabled; computed in BF16 on a GPU."""
        device = self.model.device
        features = {
            name: value.to(device) if isinstance(value, Tensor) else value
            for name, value in self.model.preprocess(list(texts)).items()
        }
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            embeddings: Tensor = self.model(features, task=_TASKS[role])["sentence_embedding"]
        return embeddings


def _identity(width: int) -> Dense:
    """Return x + W x with W = 0: weight decay pulls it back to the identity."""
    return Dense(
        width, width, bias=False, activation_function=None, init_weight=torch.zeros(width, width), use_residual=True
    )
