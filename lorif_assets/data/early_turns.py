"""Chats that are too long, without their early exchanges: these go whole, and what is left is rendered anew.

An exchange is a user's message with all that follows it up to the user's next one, so a tool's result never stays
without its call. System messages in front stay, and at least one exchange in which the assistant says something that
carries loss.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from lorif_assets.data.chat import encode_conversations
from lorif_assets.data.chat_templates import chat_template
from lorif_assets.data.conversations import Conversation, Message, is_trained
from lorif_assets.data.labels import LabelledTokens
from lorif_assets.data.rejected import UnusableRowError
from lorif_assets.data.tool_arguments import fitting_arguments
from lorif_assets.data.truncation import at_most

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SYSTEM_ROLES = frozenset({"system", "developer"})
_CALLS = ("tool_calls", "function_call")


def encode_later_turns(
    conversations: Sequence[Conversation], tokenizer: "PreTrainedTokenizerBase", max_length: int
) -> list[LabelledTokens | UnusableRowError]:
    """Labelled tokens of conversations that are too long, after as many early exchanges as it takes are dropped.

    Where even the last exchange is too long it is all that is left; its tokens are still more than `max_length`.

    Raises:
        CheckpointError: as `chat_template`.
    """
    later = [later_turns(conversation, tokenizer, max_length) for conversation in conversations]
    return [
        _said(encoded, len(whole.messages) - len(part.messages), max_length)
        for whole, part, encoded in zip(conversations, later, encode_conversations(later, tokenizer), strict=True)
    ]


def later_turns(conversation: Conversation, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> Conversation:
    """Return a conversation without the fewest early exchanges that make its tokens fit, or with the last one alone.

    It is returned whole where the template refuses a part of it.
    """
    template = replace(chat_template(tokenizer, for_tools=bool(conversation.tools)), tools=conversation.tools)
    messages = conversation.messages

    def fits(start: int) -> bool:
        text = template.text(fitting_arguments(_from(messages, start), template)[0])
        return len(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) <= max_length

    starts = exchange_starts(messages)
    if not starts:
        return conversation
    try:
        found = bisect_left(starts, True, key=fits)
    except UnusableRowError:
        return conversation
    return replace(conversation, messages=_from(messages, starts[min(found, len(starts) - 1)]))


def exchange_starts(messages: Sequence[Message]) -> list[int]:
    """Return where exchanges begin, up to the last one in which the assistant says something that carries loss."""
    first = _n_system(messages)
    answers = [k for k, one in enumerate(messages) if one["role"] == "assistant" and is_trained(one)]
    return [k for k in range(first, max(answers, default=-1) + 1) if k == first or _begins_exchange(messages, k)]


def _begins_exchange(messages: Sequence[Message], k: int) -> bool:
    """Whether the user speaks, other than to go on or to hand over what a tool returned."""
    before = messages[k - 1]
    return messages[k]["role"] == "user" and before["role"] != "user" and not any(map(before.get, _CALLS))


def _from(messages: Sequence[Message], start: int) -> Sequence[Message]:
    """The system messages in front, and the messages from `start` on."""
    return [*messages[: _n_system(messages)], *messages[start:]]


def _n_system(messages: Sequence[Message]) -> int:
    others = (k for k, message in enumerate(messages) if message["role"] not in _SYSTEM_ROLES)
    return next(others, len(messages))


def _said(
    encoded: LabelledTokens | UnusableRowError, n_dropped: int, max_length: int
) -> LabelledTokens | UnusableRowError:
    if isinstance(encoded, UnusableRowError) or not n_dropped:
        return encoded
    return replace(encoded, cut=f"the first {n_dropped} messages: {at_most(max_length, 'drop_early_turns')}")
