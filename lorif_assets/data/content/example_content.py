"""The content of one example: validated, and in one canonical form."""

import json
from collections.abc import Callable, Mapping, Sequence
from string import Formatter
from typing import Any

from lorif_assets.data.chats.conversations import LOSS_MARKS, TEMPLATE_ARGUMENTS, Conversation, is_trained
from lorif_assets.data.chats.layouts import CALL_ROLES, conversational, usual_messages
from lorif_assets.data.chats.spoken_content import spoken
from lorif_assets.data.content.columns import ColumnRoles, ContentFormat
from lorif_assets.data.content.labels import NO_LOSS
from lorif_assets.data.content.token_masks import refuse_packed, with_loss_mask, without_padding
from lorif_assets.data.rows.json_values import RepeatedKeyError, json_value, parsed_json, without_nulls
from lorif_assets.data.rows.unusable import UnusableRowError

_INT32_END = 2**31
# Types of parts of a content.
_THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
_CALLS = ("tool_use", "tool_result", "tool_call", "tool_response")
# What the template is given for every conversation.
_NO_ARGUMENTS = frozenset(
    {
        *("messages", "conversations", "tools", "chat_template", "date_pieces"),
        *("add_generation_prompt", "continue_final_message", "return_assistant_tokens_mask"),
    }
)


def read_content(values: Mapping[str, Any], roles: ColumnRoles) -> dict[str, Any]:
    """Content columns of the row's format (text, prompt, messages as JSON, input_ids ...), checked.

    Raises:
        UnusableRowError: the content is missing, empty, of the wrong type or carries no loss.
    """
    if roles.preference is not None and values.get(roles.preference) is False:
        raise UnusableRowError(
            f"{roles.preference} is false: an answer that was turned down is no training text. Leave such rows out of the "
            f"source or, where the column says something else, name it in columns.metadata"
        )
    raw = {role: values.get(column) for role, column in roles.content.items()}
    if roles.prompt_format is not None:
        raw["prompt"] = _formatted(_prompt_format(roles, values), values)
    if isinstance(ids := raw.get("input_ids"), list):
        refuse_packed({column: values.get(column) for column in roles.packing_marks}, len(ids))
    for column in roles.loss_masks:
        raw = with_loss_mask(raw, column, values.get(column))
    if roles.attention_mask is not None:
        mask = values.get(roles.attention_mask)
        if not isinstance(mask, list | None):
            raise UnusableRowError(f"attention_mask is {_kind(mask)}, not a list")
        raw = without_padding(raw, mask or [])
    return _READERS[roles.format](raw)


def parsed_field(name: str, text: str) -> Any:
    """Return what a field's JSON text says.

    Raises:
        UnusableRowError: it is no JSON, or has a key twice.
    """
    try:
        return parsed_json(text)
    except RepeatedKeyError as error:
        raise UnusableRowError(f"{name}: {error}") from error
    except ValueError as error:
        raise UnusableRowError(f"{name} is text, but no JSON: {error}") from error


def _read_text(raw: Mapping[str, Any]) -> dict[str, Any]:
    return {"text": _filled_string("text", raw["text"])}


def _read_prompt_completion(raw: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(raw["prompt"], list):
        if not raw["completion"]:
            raise UnusableRowError("completion is null or empty")
        return _read_messages({**raw, "messages": conversational(raw["prompt"], raw["completion"])})
    return {
        "prompt": _string("prompt", raw["prompt"]),
        "completion": _filled_string("completion", raw["completion"]),
    }


def _read_messages(raw: Mapping[str, Any]) -> dict[str, Any]:
    try:
        messages = usual_messages(raw["messages"])
    except ValueError as error:
        raise UnusableRowError(f"messages is text, but no list of messages as JSON: {error}") from error
    if not isinstance(messages, list):
        raise UnusableRowError(f"messages is {_kind(messages)}, not a list of {{role, content}}")
    if not messages:
        raise UnusableRowError("messages is an empty list")
    if system := raw.get("system"):
        messages = _with_system(_string("system", system), messages)
    read = [_read_message(k, message) for k, message in enumerate(messages)]
    answers = [message for message in read if message["role"] == "assistant" and spoken(message)]
    if not answers:
        roles = ", ".join(dict.fromkeys(message["role"] for message in read))
        raise UnusableRowError(
            f"no assistant message with content: the loss is on the assistant's messages, and those of the row are by {roles}"
        )
    if not any(map(is_trained, answers)):
        raise UnusableRowError(
            "every assistant message is marked as carrying no loss (weight 0, train false or the like)"
        )
    tools, arguments = _read_tools(raw.get("tools")), _read_arguments(raw.get(TEMPLATE_ARGUMENTS))
    return {"messages": Conversation(read, tools, arguments).stored()}


def _prompt_format(roles: ColumnRoles, values: Mapping[str, Any]) -> str:
    optional = [values.get(column) for column in roles.optional_prompt_columns]
    is_short = roles.short_prompt_format is not None and all(value is None or value == "" for value in optional)
    return (roles.short_prompt_format if is_short else roles.prompt_format) or ""


def _with_system(system: str, messages: list[Any]) -> list[Any]:
    """Messages behind a system message; where they begin with one of their own, that of the row would be a second one."""
    first = messages[0]
    if isinstance(first, Mapping) and first.get("role") == "system":
        if first.get("content") == system:
            return messages
        raise UnusableRowError("two system messages: the row has one, and its conversation begins with another")
    return [{"role": "system", "content": system}, *messages]


def _formatted(prompt_format: str, values: Mapping[str, Any]) -> str:
    pieces: list[str] = []
    for literal, column, *_ in Formatter().parse(prompt_format):
        value = values.get(column) if column is not None else None
        if isinstance(value, list | Mapping):
            raise UnusableRowError(f"column '{column}' of prompt_format is {_kind(value)}, not text")
        pieces += [literal, "" if value is None else str(value)]
    return "".join(pieces)


def _is_loss_mark(value: Any) -> bool:
    return isinstance(value, int | float | None) and value in {None, 0, 1}  # as numbers: 1.0 and true are 1 too


def _read_tools(tools: Any) -> list[dict[str, Any]]:
    """Tool definitions: a list of objects, some or all of it as JSON text, which keeps the nulls that it has."""
    read = parsed_field("tools", tools.strip() or "[]") if isinstance(tools, str) else without_nulls(json_value(tools))
    if not isinstance(read, list | None):
        raise UnusableRowError(f"tools is {_kind(tools)}, not a list of tool definitions or its JSON text")
    definitions = [
        parsed_field(f"tool {k}", tool) if isinstance(tool, str) else tool for k, tool in enumerate(read or [])
    ]
    for k, definition in enumerate(definitions):
        if not isinstance(definition, dict):
            raise UnusableRowError(f"tool {k} is {_kind(definition)}, not a tool definition (an object)")
    _string("tools", json.dumps(definitions, ensure_ascii=False))
    return definitions


def _read_arguments(arguments: Any) -> dict[str, Any]:
    """Arguments of the chat template: an object, or its JSON text, which keeps the nulls that it has."""
    is_text = isinstance(arguments, str)
    read = (
        parsed_field(TEMPLATE_ARGUMENTS, arguments.strip() or "{}") if is_text else without_nulls(json_value(arguments))
    )
    if not isinstance(read, dict | None):
        raise UnusableRowError(f"{TEMPLATE_ARGUMENTS} is {_kind(read)}, not an object or its JSON text")
    if taken := sorted(_NO_ARGUMENTS & {*(read or {})}):
        raise UnusableRowError(f"{TEMPLATE_ARGUMENTS} has {taken[0]}, which is not for a row to say")
    _string(TEMPLATE_ARGUMENTS, json.dumps(read, ensure_ascii=False))
    return read or {}


def _read_message(k: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise UnusableRowError(f"message {k} is {_kind(message)}, not {{role, content}}")
    if not message.get("role"):
        raise UnusableRowError(f"message {k} has no role")
    role = _string(f"role of message {k}", message["role"])
    if role in CALL_ROLES:
        raise UnusableRowError(f"message {k} is by '{role}', but its content is no JSON of calls, {{name, arguments}}")
    if isinstance(message.get("tool_calls"), str):
        raise UnusableRowError(f"tool_calls of message {k} is text, but no JSON of calls")
    _refuse_other_parts(k, message.get("content"))
    _string(f"content of message {k}", message.get("content"))
    for mark in LOSS_MARKS:
        if not _is_loss_mark(message.get(mark)):
            raise UnusableRowError(
                f"{mark} of message {k} is {json.dumps(json_value(message[mark]))}; a mark for loss is 0, 1, false or true"
            )
    # What is not checked here (a name, say) is the chat template's business.
    read = without_nulls(json_value(message))
    _string(f"message {k}", json.dumps(read, ensure_ascii=False))
    # Templates address a message's own fields by name, so their order says nothing. Objects below them they may write
    # as JSON, in the order that the model was trained on.
    return dict(sorted(read.items()))


def _refuse_other_parts(k: int, content: Any) -> None:
    """Refuse what is seen, heard, thought or called in a part of its own; parts of text were joined before."""
    parts = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
    if others := sorted({str(part.get("type")) for part in parts} - {"text"}):
        raise UnusableRowError(
            f"content of message {k} is list, not text, with a part of the type {others[0]!r}; {_place_of(others[0])}"
        )


def _place_of(kind: str) -> str:
    if kind in _THOUGHTS:
        return "reasoning belongs into a field of the message (reasoning_content, thinking)"
    if kind in _CALLS:
        return "calls belong into tool_calls of the message, what they return into messages by 'tool'"
    return "rows are read as text, and what is seen or heard with it is not"


def _read_input_ids(raw: Mapping[str, Any]) -> dict[str, Any]:
    ids = _integers("input_ids", raw["input_ids"])
    if not ids:
        raise UnusableRowError("input_ids is empty")
    if min(ids) < 0:
        raise UnusableRowError(f"input_ids holds {min(ids)}: token ids are not negative")
    if "labels" not in raw:
        return {"input_ids": ids}
    labels = _integers("labels", raw["labels"])
    if len(labels) != len(ids):
        raise UnusableRowError(f"labels has {len(labels)} entries and input_ids {len(ids)}")
    if any(label < 0 and label != NO_LOSS for label in labels):
        raise UnusableRowError(f"labels are token ids or {NO_LOSS} (no loss), not other negative numbers")
    if _are_of_the_next_token(ids, labels):
        raise UnusableRowError(
            "labels are those of the next token: the model's own shift would make them those of the one after it. Store each "
            f"label at its own token, or {NO_LOSS} there"
        )
    if all(label == NO_LOSS for label in labels):
        raise UnusableRowError(f"no label carries loss: all are {NO_LOSS}")
    return {"input_ids": ids, "labels": labels}


def _are_of_the_next_token(ids: Sequence[int], labels: Sequence[int]) -> bool:
    """Whether labels were shifted, as data for trainers that do not shift them have them."""
    pairs = [(own, after, label) for own, after, label in zip(ids, ids[1:], labels, strict=False) if label != NO_LOSS]
    return all(after == label for _, after, label in pairs) and any(own != label for own, _, label in pairs)


_READERS: Mapping[ContentFormat, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    ContentFormat.TEXT: _read_text,
    ContentFormat.PROMPT_COMPLETION: _read_prompt_completion,
    ContentFormat.MESSAGES: _read_messages,
    ContentFormat.INPUT_IDS: _read_input_ids,
}


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UnusableRowError(f"{name} is {_kind(value)}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UnusableRowError(
            f"{name} is not valid Unicode: {_no_character(value[error.start], error.start)}"
        ) from error
    return value


def _no_character(surrogate: str, position: int) -> str:
    # Readers of text that are told to go on at bytes that are not UTF-8 make these of them.
    if "\udc80" <= surrogate <= "\udcff":
        return f"a byte that is not UTF-8 at character {position}; save it as UTF-8"
    return f"lone surrogate at character {position}"


def _filled_string(name: str, value: Any) -> str:
    if not _string(name, value).strip():
        raise UnusableRowError(f"{name} is empty")
    return str(value)


def _integers(name: str, value: Any) -> list[int]:
    if isinstance(value, bytes):
        raise UnusableRowError(f"{name} is bytes: set `token_type` of the source to the type of the numbers in them")
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise UnusableRowError(f"{name} is {_kind(value)}, not a list of integers")
    # type(), not isinstance(): True and False are no token ids.
    if not set(map(type, value)) <= {int}:
        other = next(entry for entry in value if type(entry) is not int)
        raise UnusableRowError(f"{name} holds {_kind(other)}, not only integers")
    if value and not -_INT32_END <= min(value) <= max(value) < _INT32_END:
        raise UnusableRowError(f"{name} holds integers beyond 32 bits")
    return list(value)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__
