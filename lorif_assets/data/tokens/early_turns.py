"""Chats that are too long, without their early exchanges: these go whole, and what is left is rendered anew.

An exchange is a user's message with all that follows it up to the user's next one, so a tool's result never stays
without its call. System messages in front stay, and at least one exchange in which the assistant says something that
carries loss. Where that is too long too, the question loses its beginning and the answer its end (see `truncation`).
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, Final

from lorif_assets.data.chats.conversations import Conversation, Message, is_trained
from lorif_assets.data.chats.templates import ChatTemplate, chat_template
from lorif_assets.data.chats.tool_arguments import fitting_arguments
from lorif_assets.data.chats.turns import n_common
from lorif_assets.data.content.labels import LabelledTokens
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.data.tokens.chat import encode_conversations
from lorif_assets.data.tokens.truncation import at_most, truncate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_RULE: Final = "drop_early_turns"
_SYSTEM_ROLES = frozenset({"system", "developer"})
_CALLS = ("tool_calls", "function_call")
_STAND_IN = "\uf8ff"
"""A character that is in no one's words."""


def encode_later_turns(
    conversations: Sequence[Conversation], tokenizer: "PreTrainedTokenizerBase", max_length: int, day: date
) -> list[LabelledTokens | UnusableRowError]:
    """Labelled tokens of conversations that are too long, after as many early exchanges as it takes are dropped.

    Where even the last exchange is too long, what stands before the question stays if it takes half of the tokens at
    most; otherwise the tokens that are returned are still too many.

    Raises:
        CheckpointError: as `chat_template`.
    """
    later = [later_turns(conversation, tokenizer, max_length, day) for conversation in conversations]
    encoded = encode_conversations(later, tokenizer, day)
    for k, (whole, part, tokens) in enumerate(zip(conversations, later, encoded, strict=True)):
        if isinstance(tokens, LabelledTokens):
            n_dropped = len(whole.messages) - len(part.messages)
            cut = f"{n_dropped} early messages: {at_most(max_length, _RULE)}" if n_dropped else None
            encoded[k] = _keep_what_stands_before_question(replace(tokens, cut=cut), part, tokenizer, max_length, day)
    return encoded


def later_turns(
    conversation: Conversation, tokenizer: "PreTrainedTokenizerBase", max_length: int, day: date
) -> Conversation:
    """Return a conversation without the fewest early exchanges that make its tokens fit, or with the last one alone.

    Templates are told that it is `day`. It is returned whole where the template refuses a part of it.
    """
    messages, template = conversation.messages, _template(conversation, tokenizer, day)

    def fits(start: int) -> bool:
        text = _text(_from(messages, start), template)
        return len(_token_ids(text, tokenizer)) <= max_length

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


def _keep_what_stands_before_question(
    tokens: LabelledTokens, conversation: Conversation, tokenizer: "PreTrainedTokenizerBase", max_length: int, day: date
) -> LabelledTokens:
    """Cut an exchange that is too long behind the system messages and the question's header, unless these are too long."""
    if len(tokens) <= max_length:
        return tokens
    n_front = _n_before_question(tokens, conversation, tokenizer, day)
    return truncate(tokens, max_length, _RULE, n_front) if 0 < n_front <= max_length // 2 else tokens


def _n_before_question(
    tokens: LabelledTokens, conversation: Conversation, tokenizer: "PreTrainedTokenizerBase", day: date
) -> int:
    """Tokens before what the first message after the system's says, if it is a user's; 0 where that cannot be told."""
    messages, k = list(conversation.messages), _n_system(conversation.messages)
    if k == len(messages) or messages[k]["role"] != "user" or not isinstance(messages[k].get("content"), str):
        return 0
    messages[k] = {**messages[k], "content": _STAND_IN}
    template = _template(conversation, tokenizer, day)
    text = _text(conversation.messages, template)
    try:
        other = _text(messages, template)
    except UnusableRowError:
        return 0
    return n_common(_token_ids(text[: n_common(text, other)], tokenizer), tokens.input_ids.tolist())


def _template(conversation: Conversation, tokenizer: "PreTrainedTokenizerBase", day: date) -> ChatTemplate:
    return chat_template(tokenizer, day, for_tools=bool(conversation.tools)).of(conversation)


def _text(messages: Sequence[Message], template: ChatTemplate) -> str:
    return template.text(fitting_arguments(messages, template)[0])


def _token_ids(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
