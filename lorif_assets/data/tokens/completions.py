"""Prompts and completions to labelled tokens: as one text, or apart; the loss is on the completion.

As one text, the ids are those of prompt + completion, special tokens of the tokenizer included, and the question is where
in them the completion begins. If they begin with the ids of the prompt alone, it is behind those. Otherwise tokens reach
over the boundary or lie otherwise than in the prompt alone, and their place in the text tells. A token that holds the end
of the prompt and the beginning of the completion belongs to the prompt, as for trainers, which count the prompt's tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lorif_assets.data.content.labels import LabelledTokens, TokenIds, with_loss_on
from lorif_assets.data.rows.unusable import UnusableRowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STRADDLES = (
    "one token holds the end of the prompt and the beginning of the completion, as where the prompt ends in a space; it "
    "carries no loss"
)
_WITHOUT_LOSS = (
    "one token holds the end of the prompt and all of the completion, so that none is left that carries loss. Move white "
    'space from the end of the prompt to the completion, or set recipe.prompt_completion = "apart"'
)


def token_ids(texts: Sequence[str], tokenizer: "PreTrainedTokenizerBase", *, special: bool) -> list[TokenIds]:
    """Token ids of texts, with or without the special tokens that the tokenizer adds."""
    encoded = tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
    return [np.asarray(ids, np.int64) for ids in encoded["input_ids"]]


def encode_apart(
    prompts: Sequence[str], completions: Sequence[str], tokenizer: "PreTrainedTokenizerBase", leading: TokenIds
) -> list[LabelledTokens]:
    """Tokens of prompt and completion, each by itself, behind the special tokens `leading` that begin a text."""
    parts = (token_ids(texts, tokenizer, special=False) for texts in (prompts, completions))
    return [_labelled(np.concatenate([leading, p, c]), len(leading) + len(p)) for p, c in zip(*parts, strict=True)]


def encode_jointly(
    prompts: Sequence[str], completions: Sequence[str], tokenizer: "PreTrainedTokenizerBase", leading: TokenIds
) -> list[LabelledTokens | UnusableRowError]:
    """Tokens of prompt + completion as one text, or why they cannot be told apart; `leading` as above."""
    texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
    joint = token_ids(texts, tokenizer, special=True)
    fronts = [np.concatenate([leading, ids]) for ids in token_ids(prompts, tokenizer, special=False)]
    encoded: list[LabelledTokens | UnusableRowError] = []
    for prompt, text, ids, front in zip(prompts, texts, joint, fronts, strict=True):
        if np.array_equal(ids[: len(front)], front):
            encoded.append(_labelled(ids, len(front)))
        elif tokenizer.is_fast:
            encoded.append(_by_place(text, len(prompt), tokenizer, len(leading)))
        else:
            encoded.append(UnusableRowError(_no_places(tokenizer)))
    return encoded


def lost_completion(tokens: LabelledTokens) -> UnusableRowError | None:
    """Return why nothing of a row carries loss, if that is because a token reaches over the boundary."""
    return UnusableRowError(_WITHOUT_LOSS) if STRADDLES in tokens.notices and not tokens.n_targets else None


def _by_place(text: str, boundary: int, tokenizer: "PreTrainedTokenizerBase", n_leading: int) -> LabelledTokens:
    """Tokens of a text, with loss on those that begin at or behind the character `boundary`, and what follows them."""
    encoded = tokenizer(
        text,
        return_attention_mask=False,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        verbose=False,
    )
    first, end_before, straddles = n_leading, 0, False
    for k, ((start, end), added) in enumerate(
        zip(encoded["offset_mapping"], encoded["special_tokens_mask"], strict=True)
    ):
        # White space before a token is its own where a tokenizer leaves it out of the places.
        if not added and min(start, end_before) < boundary:
            first, straddles = k + 1, end > boundary
        end_before = end_before if added else max(end_before, end)
    tokens = _labelled(np.asarray(encoded["input_ids"], np.int64), first)
    return replace(tokens, notices=(STRADDLES,)) if straddles else tokens


def _labelled(input_ids: TokenIds, first: int) -> LabelledTokens:
    return with_loss_on(input_ids, np.arange(len(input_ids)) >= first)


def _no_places(tokenizer: "PreTrainedTokenizerBase") -> str:
    return (
        f"tokenizer '{tokenizer.name_or_path or type(tokenizer).__name__}' is not a fast one, and reads the prompt otherwise "
        "before the completion than alone, so that the completion's tokens cannot be told. Save it as a fast tokenizer, "
        'move white space from the end of the prompt to the completion, or set recipe.prompt_completion = "apart"'
    )
