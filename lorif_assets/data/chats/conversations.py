"""A conversation as it is stored: its messages, and what the row has besides for the chat template."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

Message = Mapping[str, Any]
"""Role, content and what else a chat template may read of one turn."""

TEMPLATE_ARGUMENTS = "chat_template_kwargs"
"""What TRL, and data that are made for it, call arguments of the chat template."""
LOSS_MARKS = ("weight", "train", "training", "trainable", "loss", "loss_mask", "loss_weight")
"""Fields by which trainers know whether a message carries loss: 0 or false takes it away."""


def is_trained(message: Message) -> bool:
    """Whether the marks of a message leave it its loss."""
    return all(message.get(mark, True) for mark in LOSS_MARKS)


@dataclass(frozen=True)
class Conversation:
    """Messages, tool definitions as JSON objects, and arguments of the chat template; empty where the row has none."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, stored: str) -> Self:
        """Return what `stored` wrote."""
        value = json.loads(stored)
        return cls(value) if isinstance(value, list) else cls.of(value)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Return what a row has in its fields, its messages in the usual form."""
        return cls(fields["messages"], fields.get("tools", ()), fields.get(TEMPLATE_ARGUMENTS, {}))

    def fields(self) -> dict[str, Any]:
        """As a row has it: its messages, and what else there is."""
        more = {"tools": list(self.tools), TEMPLATE_ARGUMENTS: dict(self.arguments)}
        return {"messages": list(self.messages), **{name: value for name, value in more.items() if value}}

    def stored(self) -> str:
        """As JSON, in the order of the data: a list of messages, or an object of messages and what else there is."""
        fields = self.fields()
        return json.dumps(fields if len(fields) > 1 else fields["messages"], ensure_ascii=False)
