"""The demo's lorif.toml: everything by default, but for what chats, adapters and a large vocabulary ask for."""

from collections.abc import Sequence
from pathlib import Path

from lorif_assets.demo.training import has_bfloat16_products

SOURCE = "chats"
_TEMPLATE = """\
# The demo's settings. `lorif init --all` writes a file in which every field is explained.

[[sources]]
name = "{source}"
path = "data"
columns = {{ id = "id", messages = "messages", metadata = ["topic", "kind"] }}

[checkpoints]
path = "checkpoints"
base_model = "base"

[queries]
path = "queries"
columns = {{ id = "id", messages = "messages" }}

[recipe]
model_dtype = "{dtype}"

[batch]
# The logits of 49,152 tokens in FP32 are 200 KB for each token of a batch, and their gradients as much again.
tokens = 1024

[evaluation]
checkpoints = "active"
methods = {methods}
{encoder}"""
_METHODS = ("lorif", "relatif", "hybrid", "representation", "bm25", "random")


def write_settings(file: Path, encoder: Path | None) -> None:
    """Write the settings.

    Args:
        file: where; the base model is in `base` beside it, the adapters in `checkpoints`.
        encoder: folder of the text encoder that is compared with, if there is one.
    """
    import torch

    native = torch.cuda.is_available() or has_bfloat16_products()
    methods = (*_METHODS, "embeddings") if encoder else _METHODS
    file.write_text(
        _TEMPLATE.format(
            source=SOURCE,
            dtype="bfloat16" if native else "float32",
            methods=_list(methods),
            encoder=f'text_encoder = "{encoder}"\n' if encoder else "",
        )
    )


def _list(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
