"""The token ids that a model embeds, beside those that its tokenizer can produce."""

import logging
from typing import TYPE_CHECKING

from lorif_assets.models.files.checkpoint_files import CheckpointFiles

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LOG = logging.getLogger(__name__)


def vocabulary_size(model: "PreTrainedModel") -> int:
    """Return the rows of the model's input embeddings: token ids must lie below."""
    return int(model.get_input_embeddings().weight.shape[0])


def check_vocabulary(
    files: CheckpointFiles, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase"
) -> str | None:
    """Warn of a tokenizer that can produce ids the model has no embedding for, and return what was said, if anything.

    It is no fault in itself: a row with such an id is set aside when it is read, and often there is none.
    """
    largest, rows = max(tokenizer.get_vocab().values(), default=-1), vocabulary_size(model)
    if largest < rows:
        return None
    notice = (
        f"the tokenizer of {files.path} has token ids up to {largest}, but the model embeds only {rows} tokens; rows with "
        "such tokens are set aside. If there are many, the tokenizer belongs to another model, or the embeddings were not "
        "resized after tokens were added"
    )
    _LOG.warning(notice)
    return notice
