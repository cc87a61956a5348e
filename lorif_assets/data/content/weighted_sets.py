"""Weighted sets: one behaviour from many prompts, each member a prompt with its completion, or a chat, and a weight."""

import sys
from collections.abc import Mapping
from typing import Any

from lorif_assets.config.sources import Columns
from lorif_assets.data.chats.conversations import TEMPLATE_ARGUMENTS, Conversation
from lorif_assets.data.content.columns import column_roles, content_format
from lorif_assets.data.content.example_content import parsed_field, read_content
from lorif_assets.data.rows.unusable import UnusableRowError

WEIGHTED = "weighted"
_COMPLETION = ("prompt", "completion")
_CHAT = ("messages", "tools", TEMPLATE_ARGUMENTS)
_SHAPES = "{prompt, completion, weight} or {messages, tools, weight}"


def read_members(value: Any) -> list[dict[str, Any]]:
    """Return a weighted set in canonical form: of each member, what a line of a query file would have, and its weight.

    Raises:
        UnusableRowError: it cannot be read.
    """
    # As they are: JSON has no NaN, and a weight that is none would count as one that was not given.
    members = parsed_field(WEIGHTED, value) if isinstance(value, str) else value
    if not isinstance(members, list | tuple) or not members:
        raise UnusableRowError(f"'{WEIGHTED}' is no list of {_SHAPES} with one member at least")
    return [_read_member(place, member) for place, member in enumerate(members)]


def member_content(member: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a member in canonical form says, as the columns of a query of its own."""
    if "messages" in member:
        return {"messages": Conversation.of(member).stored()}
    return {name: member[name] for name in _COMPLETION}


def member_rows(asked: Mapping[str, Any]) -> list[tuple[float, dict[str, Any]]]:
    """Return the weight and the row of each member of what a query asks about; of none but a weighted set, none."""
    said = [(member["weight"], member_content(member)) for member in asked.get(WEIGHTED, ())]
    return [(weight, {"format": str(content_format(content)), **content}) for weight, content in said]


def _read_member(place: int, member: Any) -> dict[str, Any]:
    if not isinstance(member, Mapping) or set(member) - {*_COMPLETION, *_CHAT, "weight"}:
        raise UnusableRowError(f"member {place} of '{WEIGHTED}' is not {_SHAPES}")
    weight = 1.0 if member.get("weight") is None else member["weight"]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < abs(weight) <= sys.float_info.max:
        raise UnusableRowError(f"the weight of member {place} of '{WEIGHTED}' is {weight!r}, not a number other than 0")
    # In a column of objects each has the fields of all.
    given = {name: member[name] for name in (*_COMPLETION, *_CHAT) if member.get(name) is not None}
    is_chat = "messages" in given
    if is_chat and given.keys() & {*_COMPLETION}:
        raise UnusableRowError(f"member {place} of '{WEIGHTED}' has messages and a prompt or completion beside them")
    named = Columns(messages="messages") if is_chat else Columns(prompt="prompt", completion="completion")
    try:
        content = read_content({"prompt": "", **given}, column_roles(named, tuple(given), WEIGHTED))
    except UnusableRowError as reason:
        raise UnusableRowError(f"member {place} of '{WEIGHTED}': {reason}") from reason
    if "messages" in content:
        return {**Conversation.parse(content["messages"]).fields(), "weight": float(weight)}
    if any(given.get(name) for name in _CHAT):
        raise UnusableRowError(f"member {place} of '{WEIGHTED}' has tools, but no chat whose template is given them")
    # Sorted, as they are hashed.
    return {"completion": content["completion"], "prompt": content["prompt"], "weight": float(weight)}
