"""Chat messages to labelled tokens, by the tokenizer's chat template: the loss is on the assistant's turns.

Where the template marks them with `{% generation %}`, those marks are used. Otherwise a turn is what the conversation
up to and with it has more than the conversation before it with the generation prompt; the end-of-turn token that the
template writes after the answer is then part of the turn. That needs renderings that continue each other, which a
template that rewrites earlier turns (by dropping their reasoning, say) does not give: such rows are set aside.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from transformers.utils.chat_template_utils import render_jinja_template

from lorif_assets.data.labels import LabelledTokens, with_loss_on
from lorif_assets.data.rejected import UnusableRowError
from lorif_assets.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]
_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class _Rendering:
    """A conversation as text, and where in it the assistant speaks: (first character, end)."""

    text: str
    turns: tuple[tuple[int, int], ...]


def encode_conversations(
    conversations: Sequence[Messages], tokenizer: "PreTrainedTokenizerBase"
) -> list[LabelledTokens | UnusableRowError]:
    """Labelled tokens of each conversation, or why there are none.

    Raises:
        CheckpointError: the tokenizer has no chat template, or is no fast one (which alone knows where in the text a
            token lies).
    """
    template = _chat_template(tokenizer)
    renderings = [_render(messages, tokenizer, template) for messages in conversations]
    encoded = iter(_tokenize([r for r in renderings if isinstance(r, _Rendering)], tokenizer))
    return [next(encoded) if isinstance(r, _Rendering) else r for r in renderings]


def _chat_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    name = tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise CheckpointError(
            f"tokenizer '{name}' is not a fast one (no tokenizer.json), which chat messages need. Save it as a fast "
            "tokenizer, or give the source prompt and completion, text or input_ids instead."
        )
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise CheckpointError(
            f"tokenizer '{name}' has no chat template, which chat messages need. Put chat_template.jinja beside its "
            "tokenizer.json, or give the source prompt and completion, text or input_ids instead."
        ) from error


def _render(messages: Messages, tokenizer: "PreTrainedTokenizerBase", template: str) -> _Rendering | UnusableRowError:
    render = _render_marked if _GENERATION_BLOCK.search(template) else _render_turn_by_turn
    try:
        return render(messages, tokenizer, template)
    except UnusableRowError as reason:
        return reason
    except jinja2.TemplateError as error:
        return UnusableRowError(f"the chat template refuses the messages: {error}")


def _render_marked(messages: Messages, tokenizer: "PreTrainedTokenizerBase", template: str) -> _Rendering:
    # Not `apply_chat_template(return_assistant_tokens_mask=True)`: where a turn begins or ends in white space that the
    # tokenizer leaves out of its offsets, that mask loses turns or covers the user's (transformers issue 47325).
    (text,), (turns,) = render_jinja_template(
        [list(messages)], chat_template=template, return_assistant_tokens_mask=True, **tokenizer.special_tokens_map
    )
    return _Rendering(text, tuple(turns))


def _render_turn_by_turn(messages: Messages, tokenizer: "PreTrainedTokenizerBase", template: str) -> _Rendering:
    def text(conversation: Messages, *, add_generation_prompt: bool = False) -> str:
        (rendered,), _ = render_jinja_template(
            [list(conversation)],
            chat_template=template,
            add_generation_prompt=add_generation_prompt,
            **tokenizer.special_tokens_map,
        )
        return str(rendered)

    whole = text(messages)
    turns = []
    for k, message in enumerate(messages):
        if message["role"] == "assistant":
            before, through = text(messages[:k], add_generation_prompt=True), text(messages[: k + 1])
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
    return with_loss_on(np.asarray(ids, np.int64), carries_loss)
