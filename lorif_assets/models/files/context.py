"""How many tokens a model can read, told from its configuration and its tokenizer."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_NAMES = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
    "context_length",
    "block_size",
)
"""What configurations call the context, the most common name first."""
COUNTED_FROM_PADDING = frozenset(
    {"camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"}
)
"""Families (`model_type`) whose positions begin behind that of the padding token: they read so many tokens fewer."""
_FEWEST = 2
"""Less is no length: some configurations say -1 for none."""
_PLACEHOLDER = 1 << 40
"""Tokenizers that know no length say 1e20 or 1e30."""


def context_length(config: "PreTrainedConfig") -> int | None:
    """Return the tokens that a model was made for; None where its configuration names no bound."""
    length = next(_lengths(config), None)
    if length is not None and config.model_type in COUNTED_FROM_PADDING:
        return length - config.pad_token_id - 1
    return length


def tokenizer_length(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """Return the tokens that a tokenizer says its model reads; None for a placeholder that is no length."""
    length = tokenizer.model_max_length
    return int(length) if _FEWEST <= length < _PLACEHOLDER else None


def _lengths(config: "PreTrainedConfig") -> Iterator[int]:
    # Of a model that reads images too, the part that reads text has the context.
    parts = (config, config.get_text_config(decoder=True))
    for name in _NAMES:
        for part in parts:
            length = getattr(part, name, None)
            if isinstance(length, int) and length >= _FEWEST:
                yield length
