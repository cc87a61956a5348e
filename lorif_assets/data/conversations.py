"""A conversation as it is stored: its messages, and the definitions of tools that the row has for it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

Message = Mapping[str, Any]
"""Role, content and what else a chat template may read of one turn."""

LOSS_MARKS = ("weight", "train", "training", "trainable", "loss", "loss_mask", "loss_weight")
"""Fields by which trainers know whether a message carries loss: 0 or false takes it away."""


def is_trained(message: Message) -> bool:
    """Whether the marks of a message leave it its loss."""
    return all(message.get(mark, True) for mark in LOSS_MARKS)


@dataclass(frozen=True)
class Conversation:
    """Messages, and tool definitions as JSON objects; empty where the row has none."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def parse(cls, stored: str) -> Self:
        """Return what `stored` wrote."""
        value = json.loads(stored)
        return cls(value["messages"], value["tools"]) if isinstance(value, dict) else cls(value)

    def stored(self) -> str:
        """As JSON, in the order of the data: a list of messages, or an object of messages and tools if there are any."""
        value = {"messages": list(self.messages), "tools": list(self.tools)} if self.tools else list(self.messages)
        return json.dumps(value, ensure_ascii=False)
