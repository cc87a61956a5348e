"""Chats in the layouts that people keep them in, as messages of role and content.

ShareGPT's `from` and `value`, JSON text, content in parts of text, content that is null beside tool calls, tool calls as
messages of a role of their own, the role "model". What is in the usual form is left as it is.
"""

import json
from collections.abc import Mapping
from typing import Any

from lorif_assets.data.chats.spoken_content import SPOKEN_FIELDS
from lorif_assets.data.rows.json_values import parsed_json, without_nulls

_SHAREGPT_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "observation": "tool",
}
CALL_ROLES = ("function_call", "tool_call")
"""Roles whose content is the JSON of the assistant's calls."""
_WITH_CALLS = ("tool_calls", "function_call", "content", "value")
_MODEL = "model"
_ASSISTANT = "assistant"


def usual_messages(messages: Any) -> Any:
    """Return messages in the usual form; what is in none of the layouts is returned as it is, for the checks to refuse.

    Raises:
        ValueError: they are text, but no JSON.
    """
    is_text = isinstance(messages, str)
    listed = parsed_json(messages) if is_text else messages
    if not isinstance(listed, list):
        return listed
    if is_text:
        listed = [
            {name: _with_written_nulls(value) if name in _WITH_CALLS else value for name, value in message.items()}
            if isinstance(message, dict)
            else message
            for message in listed
        ]
    usual = [_usual(message) if isinstance(message, Mapping) else message for message in listed]
    roles = [message.get("role") for message in usual if isinstance(message, Mapping)]
    if _MODEL in roles and _ASSISTANT not in roles:
        return [_renamed(message) for message in usual]
    return usual


def conversational(prompt: Any, completion: Any) -> list[Any]:
    """Return the messages of a prompt and of a completion: of the prompt's, none carries loss.

    The completion may also be a single message, or what the assistant says.
    """
    before = usual_messages(prompt)
    spoken = {"role": _ASSISTANT, "content": completion} if isinstance(completion, str) else completion
    return [
        {**message, "train": False} if isinstance(message, Mapping) and message.get("role") == _ASSISTANT else message
        for message in before
    ] + usual_messages(spoken if isinstance(spoken, list) else [spoken])


def _usual(message: Mapping[str, Any]) -> Mapping[str, Any]:
    if message.get("role") is None and message.get("from") is not None:
        others = {name: value for name, value in message.items() if name not in {"from", "value", "role", "content"}}
        role = message["from"]
        message = {
            "role": _SHAREGPT_ROLES.get(role, role) if isinstance(role, str) else role,
            "content": message.get("value"),
            **others,
        }
    content = message.get("content")
    if isinstance(written := message.get("tool_calls"), str):
        # As columns hold calls whose arguments are of different types.
        message = {**message, "tool_calls": _with_written_nulls(_from_json(written))}
    if message.get("role") in CALL_ROLES and (calls := _calls(content)):
        return {**message, "role": _ASSISTANT, "content": "", "tool_calls": calls}
    if content is None and any(message.get(field) for field in SPOKEN_FIELDS):
        # A template writes null as "None".
        return {**message, "content": ""}
    if isinstance(content, list) and content and all(map(_is_text, content)):
        return {**message, "content": "".join(part["text"] for part in content)}
    return message


def _calls(content: Any) -> list[dict[str, Any]]:
    """Return calls that JSON says, one or a list of them, in the usual form; none where it says something else."""
    said = _with_written_nulls(_from_json(content)) if isinstance(content, str) else content
    calls = said if isinstance(said, list) else [said]
    if not all(isinstance(call, Mapping) and isinstance(call.get("name"), str) for call in calls):
        return []
    return [{"type": "function", "function": dict(call)} for call in calls]


def _with_written_nulls(calls: Any) -> Any:
    """Return calls that were read from JSON text; arguments that hold a null become text again, which keeps it: nulls are left
    out as what a column of objects adds, and these are none of a column's.
    """
    if isinstance(calls, list):
        return [_with_written_nulls(call) for call in calls]
    if not isinstance(calls, dict):
        return calls
    if isinstance(function := calls.get("function"), dict):
        return {**calls, "function": _with_written_nulls(function)}
    arguments = calls.get("arguments")
    if not isinstance(arguments, dict) or without_nulls(arguments) == arguments:
        return calls
    return {**calls, "arguments": json.dumps(arguments, ensure_ascii=False)}


def _from_json(text: str) -> Any:
    """Return what JSON text stands for; any other text as it is, for the checks to refuse."""
    try:
        return parsed_json(text) if text.strip() else None
    except ValueError:
        return text


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _renamed(message: Any) -> Any:
    if isinstance(message, Mapping) and message.get("role") == _MODEL:
        return {**message, "role": _ASSISTANT}
    return message
