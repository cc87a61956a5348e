"""Chat messages to labelled tokens, by the tokenizer's chat template: the loss is on the assistant's turns.

Where the template marks them with `{% generation %}`, those marks are used; otherwise see `chat_turns`. A
message that the row marks as untrained (weight 0, train false) carries no loss, nor does one of which the rendering
shows nothing; what else a rendering leaves out is noticed.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lorif_assets.config.recipe_fields import TEMPLATE_DATE
from lorif_assets.data.chats.conversations import LOSS_MARKS, Conversation, Message, is_trained
from lorif_assets.data.chats.spoken_content import kinds_left_out, spoken
from lorif_assets.data.chats.template_worker import n_workers
from lorif_assets.data.chats.templates import ChatTemplate, Span, chat_template
from lorif_assets.data.chats.tool_arguments import fitting_arguments
from lorif_assets.data.chats.turns import ChatTurns
from lorif_assets.data.content.labels import LabelledTokens, with_loss_on
from lorif_assets.data.rows.rejected import UnusableRowError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


NO_TOOLS = "the chat template takes no tool definitions: the model does not see those of the row"
OTHERS_TRAINED = "a message of another role is marked as trained; the loss is on the assistant's messages alone"
WRITES_DATE = "the chat template writes today's date, for which recipe.template_date stands"
DRAWS = "the chat template draws at random: what the model saw may be another draw"
DROPPED = "the chat template leaves out all that a message of the assistant says; such messages carry no loss"


@dataclass(frozen=True)
class _Rendering:
    """A conversation as text, where in it the assistant speaks, and what of the row is rendered otherwise."""

    text: str
    turns: tuple[Span, ...]
    notices: tuple[str, ...] = ()


def encode_conversations(
    conversations: Sequence[Conversation], tokenizer: "PreTrainedTokenizerBase", day: date = TEMPLATE_DATE
) -> list[LabelledTokens | UnusableRowError]:
    """Labelled tokens of each conversation, or why there are none; `day` is what the template takes for today.

    Raises:
        CheckpointError: as `chat_template`.
    """
    templates = {
        for_tools: chat_template(tokenizer, day, for_tools=for_tools)
        for for_tools in {bool(conversation.tools) for conversation in conversations}
    }
    control_tokens = frozenset(tokenizer.get_added_vocab())

    def render(conversation: Conversation) -> _Rendering | UnusableRowError:
        return _render(conversation.messages, templates[bool(conversation.tools)].of(conversation), control_tokens)

    # Threads wait for the processes that render.
    with ThreadPoolExecutor(n_workers(), "render") as threads:
        renderings = list(threads.map(render, conversations))
    encoded = iter(_tokenize([r for r in renderings if isinstance(r, _Rendering)], tokenizer))
    return [next(encoded) if isinstance(r, _Rendering) else r for r in renderings]


def _render(
    messages: Sequence[Message], template: ChatTemplate, control_tokens: frozenset[str]
) -> _Rendering | UnusableRowError:
    try:
        messages, notice = fitting_arguments(messages, template)
        turns = ChatTurns(messages, template, control_tokens)
        text, marks = template.marked(messages) if template.marks_turns else (turns.text, [])
        spans, notices = _loss_spans(turns, text, marks)
    except UnusableRowError as reason:
        return reason
    if notice:
        notices.append(notice)
    if template.tools and not _takes_tools(template, messages, text):
        notices.append(NO_TOOLS)
    if template.writes_date(messages, text):
        notices.append(WRITES_DATE)
    if template.draws:
        notices.append(DRAWS)
    return _Rendering(text, tuple(spans), tuple(dict.fromkeys(notices)))


def _loss_spans(turns: ChatTurns, text: str, marks: Sequence[Span]) -> tuple[list[Span], list[str]]:
    """Where in the text the assistant speaks, and what a person should know of it.

    Raises:
        UnusableRowError: that cannot be told, or nothing that it says is in the text.
    """
    answers = [k for k, message in enumerate(turns.messages) if message["role"] == "assistant"]
    untrained = {k for k in answers if not is_trained(turns.messages[k])}
    notices = [OTHERS_TRAINED] if any(map(_asks_for_loss, turns.messages)) else []
    if marks and len(marks) != len(answers):
        # Which of them are of which message is not known.
        without_loss = [span for k in untrained for span in turns.spans(k)]
        return [mark for mark in marks if not any(map(partial(_overlap, mark), without_loss))], notices
    spans = (
        {k: [mark] for k, mark in zip(answers, marks, strict=True)} if marks else {k: turns.spans(k) for k in answers}
    )
    shown = {k: "".join(text[slice(*span)] for span in of_answer) for k, of_answer in spans.items()}
    dropped = {k for k in answers if _is_dropped(turns, k, shown[k])}
    kept = {k: of_answer for k, of_answer in spans.items() if of_answer and k not in dropped}
    if dropped and kept.keys() <= untrained:
        raise UnusableRowError("the chat template leaves out everything that the assistant says")
    notices += [DROPPED] if dropped - untrained else []
    for k, message in enumerate(turns.messages):
        if k not in dropped:
            where = shown[k] if k in kept else text
            notices += [_left_out(kind, message["role"]) for kind in kinds_left_out(spoken(message), where)]
    return [span for k, of_answer in kept.items() if k not in untrained for span in of_answer], notices


def _takes_tools(template: ChatTemplate, messages: Sequence[Message], text: str) -> bool:
    """Whether a conversation's text is another one with its tool definitions than without."""
    try:
        return replace(template, tools=()).text(messages) != text
    except UnusableRowError:
        return True


def _is_dropped(turns: ChatTurns, k: int, shown: str) -> bool:
    """Whether the template leaves out all that an assistant's message says, so that only its frame, if any, is shown."""
    said = spoken(turns.messages[k])
    if not shown or not said:
        return bool(said)
    # A template may also write what is said otherwise than it is: only one that shows no stand-in either leaves it out.
    return len(kinds_left_out(said, shown)) == len(said) and turns.answer(k) is None


def _asks_for_loss(message: Message) -> bool:
    return message["role"] != "assistant" and any(message.get(mark) for mark in LOSS_MARKS)


def _overlap(one: Span, other: Span) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


def _left_out(kind: str, role: str) -> str:
    return f"the chat template leaves out {kind} of a message by '{role}', or changes it"


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
