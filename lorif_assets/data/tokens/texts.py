"""What each token says: texts of single tokens that make up the text of all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lorif_assets.data.content.labels import TokenIds

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_LONGEST_CHARACTER = 8
"""Tokens of one character, at most; more without a whole one are no text."""


def token_texts(input_ids: TokenIds | Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Return the text of each of the ids [T], special tokens by their names.

    A character of several tokens is the last one's, and the others' text is empty. White space is where the tokenizer
    writes it in a text, as each token is read behind the one before it.
    """
    ids = [int(token) for token in input_ids]
    texts: list[str] = []
    first = 0
    for end in range(1, len(ids) + 1):
        context = ids[max(0, first - 1) : first]
        before = _decoded(context, tokenizer)
        text = _decoded([*context, *ids[first:end]], tokenizer)[len(before) :]
        if text.endswith(_BROKEN) and end - first < _LONGEST_CHARACTER and end < len(ids):
            texts.append("")
            continue
        texts.append(text)
        first = end
    return texts


def _decoded(ids: Sequence[int], tokenizer: "PreTrainedTokenizerBase") -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))
