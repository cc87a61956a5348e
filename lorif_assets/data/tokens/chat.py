"""Chat messages to labelled tokens, by the tokenizer's chat template: the loss is on the assistant's turns."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from lorif_assets.config.recipe_fields import TEMPLATE_DATE
from lorif_assets.data.chats.conversations import Conversation
from lorif_assets.data.chats.renderings import Rendering, rendered_apart
from lorif_assets.data.chats.templates import chat_template
from lorif_assets.data.content.labels import LabelledTokens, with_loss_on
from lorif_assets.data.rows.unusable import UnusableRowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def encode_conversations(
    conversations: Sequence[Conversation], tokenizer: "PreTrainedTokenizerBase", day: date = TEMPLATE_DATE
) -> list[LabelledTokens | UnusableRowError]:
    """Labelled tokens of each conversation, or why there are none; `day` is what the template takes for today.

    Raises:
        CheckpointError: as `chat_template`.
    """
    control_tokens = frozenset(tokenizer.get_added_vocab())
    renderings: dict[int, Rendering | UnusableRowError] = {}
    for for_tools in {bool(conversation.tools) for conversation in conversations}:
        chosen = [k for k, conversation in enumerate(conversations) if bool(conversation.tools) == for_tools]
        template = chat_template(tokenizer, day, for_tools=for_tools)
        found = rendered_apart([conversations[k] for k in chosen], template, control_tokens)
        renderings.update(zip(chosen, found, strict=True))
    in_order = [renderings[k] for k in range(len(conversations))]
    encoded = iter(_tokenize([r for r in in_order if isinstance(r, Rendering)], tokenizer))
    return [next(encoded) if isinstance(r, Rendering) else r for r in in_order]


def _tokenize(renderings: Sequence[Rendering], tokenizer: "PreTrainedTokenizerBase") -> list[LabelledTokens]:
    if not renderings:
        return []
    encoded = tokenizer(
        [rendering.text for rendering in renderings],
        add_special_tokens=False,  # the template has written them
        return_attention_mask=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    return [
        _labelled(rendering, ids, offsets)
        for rendering, ids, offsets in zip(renderings, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    ]


def _labelled(rendering: Rendering, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> LabelledTokens:
    spoken = np.zeros(len(rendering.text), np.int64)
    for first, end in rendering.turns:
        spoken[first:end] = 1
    spoken_before = np.concatenate([[0], np.cumsum(spoken)])
    starts, ends = np.asarray(offsets, np.int64).reshape(-1, 2).T
    # Tokenizers that leave white space out of offsets give a token of nothing else no width, at its end.
    starts = np.minimum(starts, ends - 1).clip(min=0)
    carries_loss = spoken_before[ends] > spoken_before[starts]
    return replace(with_loss_on(np.asarray(ids, np.int64), carries_loss), notices=tuple(rendering.notices))
