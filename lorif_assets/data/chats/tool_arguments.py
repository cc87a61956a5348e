"""Arguments of tool calls in either of their forms: an object, or its JSON text (OpenAI's)."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lorif_assets.data.chats.conversations import Message
from lorif_assets.data.chats.templates import ChatTemplate
from lorif_assets.data.rows.json_values import parsed_json
from lorif_assets.data.rows.unusable import UnusableRowError

PARSED = "tool arguments are given to the chat template as objects, where the row has their JSON text"
WRITTEN = "tool arguments are given to the chat template as JSON text, where the row has objects"


def fitting_arguments(messages: Sequence[Message], template: ChatTemplate) -> tuple[Sequence[Message], str | None]:
    """Return messages with tool arguments in the form that the template takes, and a notice where that is not theirs.

    The row's own form is taken unless the template raises on it, or writes JSON text as a JSON string, escaped twice.

    Raises:
        UnusableRowError: the template raises on either form.
    """
    given = [function["arguments"] for message in messages for function in _functions(message)]
    if not given:
        return messages, None
    failure: UnusableRowError | None = None
    try:
        text = template.text(messages)
    except UnusableRowError as error:
        failure = error
    else:
        if not any(_is_escaped(arguments, text) for arguments in given):
            return messages, None
    forms = [(PARSED, _parsed), (WRITTEN, _written)] if failure else [(PARSED, _parsed)]
    for notice, convert in forms:
        converted = [with_arguments(message, convert) for message in messages]
        if converted == list(messages):
            continue
        try:
            template.text(converted)
        except UnusableRowError:
            continue
        return converted, notice
    if failure is not None:
        raise failure
    return messages, None


def with_arguments(message: Message, convert: Callable[[Any], Any]) -> Message:
    """Return a message whose tool calls, if any, have converted arguments."""
    if not _functions(message):
        return message
    return {**message, "tool_calls": [_converted(call, convert) for call in message["tool_calls"]]}


def _functions(message: Message) -> list[Mapping[str, Any]]:
    calls = message.get("tool_calls")
    functions = [_function(call) for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []
    return [function for function in functions if "arguments" in function]


def _function(call: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = call.get("function")
    return inner if isinstance(inner, Mapping) else call


def _converted(call: Any, convert: Callable[[Any], Any]) -> Any:
    if not isinstance(call, Mapping) or "arguments" not in (function := _function(call)):
        return call
    converted = {**function, "arguments": convert(function["arguments"])}
    return converted if function is call else {**call, "function": converted}


def _parsed(arguments: Any) -> Any:
    """The object that JSON text stands for; anything else as it is."""
    if not isinstance(arguments, str):
        return arguments
    try:
        value = parsed_json(arguments)
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


def _written(arguments: Any) -> Any:
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, Mapping) else arguments


def _is_escaped(arguments: Any, text: str) -> bool:
    """Whether a text holds JSON text as a JSON string."""
    return isinstance(arguments, str) and '"' in arguments and json.dumps(arguments, ensure_ascii=False) in text
