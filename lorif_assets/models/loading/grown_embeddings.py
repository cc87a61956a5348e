"""Embeddings that grew before an adapter was trained: their rows are in its file, and its base model gets as many."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lorif_assets.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

INSIDE = "base_model.model."
"""What peft puts before the names of a base model's modules."""
# Where an adapter's file has the rows of embeddings with new tokens: first as they were before training, if they were trained.
_ROWS_OF_EMBEDDINGS = (
    ".original_module.weight",
    ".token_adapter.base_layer.weight",
    ".base_layer.weight",
    ".weight",
    ".lora_embedding_A",
)


def grow_embeddings(model: "PreTrainedModel", weights: "Mapping[str, Tensor]", adapter: Path) -> None:
    """Give a model as many rows of embeddings as its adapter was trained with.

    Raises:
        CheckpointError: the adapter has rows for new tokens in one of the embeddings and in the other one not.
    """
    names = {module: name for name, module in model.named_modules()}
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    trained = {part: _rows(weights, names[part]) for part in (inputs, outputs) if part is not None}
    rows, present = next((rows for rows in trained.values() if rows is not None), None), int(inputs.weight.shape[0])
    if rows is None or rows == present:
        return
    tied = outputs is not None and outputs.weight is inputs.weight
    if rows > present and not tied and None in trained.values():
        part = next(names[part] for part, found in trained.items() if found is None)
        raise CheckpointError(
            f"the adapter {adapter} embeds {rows} tokens, {rows - present} more than its base model, but holds no rows of "
            f"{part} for them, which would be random; save it with `save_embedding_layers=True`"
        )
    model.resize_token_embeddings(rows, mean_resizing=False)
    if tied:
        # An adapter on one of the two brings the new rows of that one alone.
        saved = next(tensor for part in trained if (tensor := _saved_rows(weights, names[part])) is not None)
        grown = model.get_input_embeddings().weight
        if saved.shape == grown.shape and not grown.is_meta:
            grown.data.copy_(saved)


def _rows(weights: "Mapping[str, Tensor]", module: str) -> int | None:
    saved = _saved_rows(weights, module)
    return None if saved is None else len(saved)


def _saved_rows(weights: "Mapping[str, Tensor]", module: str) -> "Tensor | None":
    """Return what an adapter's file has of the rows of a model's embeddings, or of its head: None where it has nothing."""
    for suffix in _ROWS_OF_EMBEDDINGS:
        if (tensor := weights.get(f"{INSIDE}{module}{suffix}")) is not None:
            return tensor.mT if suffix == ".lora_embedding_A" else tensor
    return None
