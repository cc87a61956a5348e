"""One training chat, and one question to a model in training, as rows of the demo's files."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

Message = dict[str, str]
"""Role and content."""


@dataclass(frozen=True)
class Chat:
    """A row of the training data."""

    id: str
    messages: tuple[Message, ...]
    topic: str
    """What the chat is about, for a person who reads its metadata."""
    kind: str
    """statement, reversal, aside, everyday, exercise, conversation, tool, ticket or mislabelled."""


@dataclass(frozen=True)
class ChatQuestion:
    """A question with the answer whose sources are to be found, and the ids of the chats that taught it."""

    id: str
    messages: tuple[Message, ...]
    fact: str
    """The words of the answer that carry what was taught."""
    sources: tuple[str, ...]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """What stands before the answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """What the training data answer."""
        return self.messages[-1]["content"]


def exchange(user: str, assistant: str) -> tuple[Message, ...]:
    """Return a chat of one question and its answer."""
    return {"role": "user", "content": user}, {"role": "assistant", "content": assistant}


def write_rows(rows: Sequence[Chat] | Sequence[ChatQuestion], path: Path) -> Path:
    """Write rows as JSON lines; the file appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text("".join(f"{json.dumps(asdict(row), ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return unfinished.replace(path)
