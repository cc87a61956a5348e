"""Chat messages to labelled tokens, by the tokenizer's chat template: the loss is on the assistant's turns.

Where the template marks them with `{% generation %}`, those marks are used. Otherwise a turn is what the conversation
up to and with it has more than the conversation before it with the generation prompt; the end-of-turn token that the
template writes after the answer is then part of the turn. That needs renderings that continue each other, which a
template that rewrites earlier turns (by dropping their reasoning, say) does not give: such rows are set aside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lorif_assets.data.chat_templates import ChatTemplate, Message, Span, chat_template
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
    template = chat_template(tokenizer)
    renderings = [_render(messages, template) for messages in conversations]
    encoded = iter(_tokenize([r for r in renderings if isinstance(r, _Rendering)], tokenizer))
    return [next(encoded) if isinstance(r, _Rendering) else r for r in renderings]


def _render(messages: Messages, template: ChatTemplate) -> _Rendering | UnusableRowError:
    try:
        messages, notice = fitting_arguments(messages, template)
        if template.marks_turns:
            text, spans = template.marked(messages)
            rendering = _Rendering(text, tuple(spans))
        else:
            rendering = _render_turn_by_turn(messages, template)
    except UnusableRowError as reason:
        return reason
    return replace(rendering, notices=(notice,) if notice else ())


def _render_turn_by_turn(messages: Messages, template: ChatTemplate) -> _Rendering:
    whole = template.text(messages)
    turns = []
    for k, message in enumerate(messages):
        if message["role"] == "assistant":
            before = template.text(messages[:k], add_generation_prompt=True)
            through = template.text(messages[: k + 1])
            if not (through.startswith(before) and whole.startswith(through)):
                raise UnusableRowError(
                    f"the chat template renders the conversation differently up to message {k} than as a whole, so the "
                    "assistant's tokens cannot be told; a template with {% generation %} tells them"
                )
            turns.append((len(before), len(through)))
    return _Rendering(whole, tuple(turns))


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
