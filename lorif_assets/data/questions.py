"""A question that is asked at once, not from a query set's file: in the form of a query set's row."""

from collections.abc import Mapping
from typing import Any

from lorif_assets.config.sources import Columns
from lorif_assets.data.chats.conversations import TEMPLATE_ARGUMENTS
from lorif_assets.data.content.columns import ContentFormat, column_roles
from lorif_assets.data.content.example_content import read_content
from lorif_assets.data.content.query_objectives import OBJECTIVES, ScalarRules
from lorif_assets.data.examples import sort_out
from lorif_assets.data.formats.reader import RawShard
from lorif_assets.data.rows.json_values import NestedTooDeepError
from lorif_assets.data.rows.unusable import UnusableRowError
from lorif_assets.errors import SourceError
from lorif_assets.lake.data_tables import EXAMPLE_CONTENT

_CONTENT = (
    *("text", "prompt", "completion", "input_ids", "labels"),
    *("messages", "conversations", "system", "tools", TEMPLATE_ARGUMENTS),
)

Question = Mapping[str, Any]
"""Columns of `query_examples` that hold content: format, and text, prompt and completion, or messages."""


def completion_question(prompt: str, completion: str) -> Question:
    """Return what was said after a prompt; without a prompt, as text.

    Raises:
        SourceError: either is no text, or text that is not valid Unicode.
    """
    for name, text in (("prompt", prompt), ("completion", completion)):
        if not isinstance(text, str):
            raise SourceError(f"the {name} is a {type(text).__name__}; expected a text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise SourceError(
                f"the {name} is not valid Unicode: lone surrogate at character {error.start}; a terminal gives one for a byte "
                "that is not UTF-8. Write it again in UTF-8"
            ) from error
    if not prompt:
        return {"format": ContentFormat.TEXT, "text": completion}
    return {"format": ContentFormat.PROMPT_COMPLETION, "prompt": prompt, "completion": completion}


def row_question(row: Mapping[str, Any], scalar_rules: ScalarRules) -> Question:
    """Return what a line of a query file would ask: content, and what is asked about it by `span`, `against` and the like.

    Raises:
        SourceError: it cannot be used.
    """
    raw = RawShard("the query", tuple(row), ((0, row),))
    columns = Columns(metadata=tuple(name for name in row if name not in OBJECTIVES and name not in _CONTENT))
    read = sort_out(raw, columns, "query", scalar_rules)
    if read.rejected.num_rows:
        raise SourceError(f"the query cannot be used: {read.rejected['reason'][0].as_py()}")
    (found,) = read.examples.to_pylist()
    return {name: found[name] for name in (*EXAMPLE_CONTENT, "objective")}


def conversation_question(conversation: object, origin: str) -> Question:
    """Return what the assistant says in a conversation: a list of messages, or an object of messages and tools.

    Raises:
        SourceError: it is neither, or breaks a rule for chat messages; `origin` says where it is from.
    """
    row = conversation if isinstance(conversation, Mapping) else {"messages": conversation}
    roles = column_roles(Columns(messages="messages"), tuple(row), origin)
    try:
        return {"format": roles.format, **read_content(row, roles)}
    except (UnusableRowError, NestedTooDeepError) as reason:
        raise SourceError(
            f"{origin}: {reason}. Give a list of {{role, content}}, or an object of `messages` and `tools`."
        ) from reason
