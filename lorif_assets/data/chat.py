"""Chat messages to labelled tokens, by the tokenizer's chat template: the loss is on the assistant's turns.

Where the template marks them with `{% generation %}`, those marks are used; otherwise see `chat_turns`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lorif_assets.data.chat_templates import ChatTemplate, Message, Span, chat_template
from lorif_assets.data.chat_turns import ChatTurns
from lorif_assets.data.labels import LabelledTokens, with_loss_on
from lorif_assets.data.rejected import UnusableRowError
from lorif_assets.data.tool_arguments import fitting_arguments

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Message]


@dataclass(frozen=True)
class _Rendering:
    """A conversation as text, where in it the assistant speaks, and what of the row is rendered otherwise."""

    text: str
    turns: tuple[Span, ...]
    notices: tuple[str, ...] = ()


def encode_conversations(
    conversations: Sequence[Messages], tokenizer: "PreTrainedTokenizerBase"
) -> list[LabelledTokens | UnusableRowError]:
    """Labelled tokens of each conversation, or why there are none.

    Raises:
        CheckpointError: the tokenizer has no chat template, or is no fast one (which alone knows where in the text a
            token lies).
    """
    template, control_tokens = chat_template(tokenizer), frozenset(tokenizer.get_added_vocab())
    renderings = [_render(messages, template, control_tokens) for messages in conversations]
    encoded = iter(_tokenize([r for r in renderings if isinstance(r, _Rendering)], tokenizer))
    return [next(encoded) if isinstance(r, _Rendering) else r for r in renderings]


def _render(
    messages: Messages, template: ChatTemplate, control_tokens: frozenset[str]
) -> _Rendering | UnusableRowError:
    try:
        messages, notice = fitting_arguments(messages, template)
        if template.marks_turns:
            text, spans = template.marked(messages)
        else:
            turns = ChatTurns(messages, template, control_tokens)
            found = [turns.span(k) for k, message in enumerate(messages) if message["role"] == "assistant"]
            text, spans = turns.text, [span for span in found if span]
    except UnusableRowError as reason:
        return reason
    return _Rendering(text, tuple(spans), notices=(notice,) if notice else ())


def _tokenize(renderings: Sequence[_Rendering], tokenizer: "PreTrainedTokenizerBase") -> list[LabelledTokens]:
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


def _labelled(rendering: _Rendering, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> LabelledTokens:
    spoken = np.zeros(len(rendering.text), np.int64)
    for first, end in rendering.turns:
        spoken[first:end] = 1
    spoken_before = np.concatenate([[0], np.cumsum(spoken)])
    starts, ends = np.asarray(offsets, np.int64).reshape(-1, 2).T
    # Tokenizers that leave white space out of offsets give a token of nothing else no width, at its end.
    starts = np.minimum(starts, ends - 1).clip(min=0)
    carries_loss = spoken_before[ends] > spoken_before[starts]
    return replace(with_loss_on(np.asarray(ids, np.int64), carries_loss), notices=rendering.notices)
