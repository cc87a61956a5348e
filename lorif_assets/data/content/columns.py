"""Which column of a source plays which role: as the settings say, or by well-known names."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lorif_assets.config.sources import Columns
from lorif_assets.data.chats.conversations import TEMPLATE_ARGUMENTS
from lorif_assets.data.content.token_masks import (
    ATTENTION_MASK,
    POSITIONS,
    SEQUENCE_ENDS,
    SEQUENCE_LENGTHS,
    SEQUENCE_NUMBERS,
)
from lorif_assets.errors import SourceError


class ContentFormat(StrEnum):
    """The kinds of content that an example may have."""

    TEXT = "text"
    PROMPT_COMPLETION = "prompt_completion"
    MESSAGES = "messages"
    INPUT_IDS = "input_ids"


_COLUMNS_OF_FORMAT: Mapping[ContentFormat, tuple[str, ...]] = {
    ContentFormat.TEXT: ("text",),
    ContentFormat.PROMPT_COMPLETION: ("prompt", "completion"),
    ContentFormat.MESSAGES: ("messages",),
    ContentFormat.INPUT_IDS: ("input_ids",),
}
_FOR_TEMPLATES = ("tools", TEMPLATE_ARGUMENTS)
_OPTIONAL_COLUMNS_OF_FORMAT: Mapping[ContentFormat, tuple[str, ...]] = {
    ContentFormat.PROMPT_COMPLETION: _FOR_TEMPLATES,
    ContentFormat.MESSAGES: ("system", *_FOR_TEMPLATES),
    ContentFormat.INPUT_IDS: ("labels",),
}
# Whether people wanted the answer, in data for preference training. Beside other content the name says nothing.
_PREFERENCE = "label"
_FORMATS_OF_PREFERENCES = (ContentFormat.PROMPT_COMPLETION, ContentFormat.MESSAGES)
_CHOSEN = "chosen"
# Alone, the first may be a mark of an answer, or its number.
_PAIR = (_CHOSEN, "rejected")
# Layouts by other names.
_SHAREGPT = "conversations"
_ALPACA = ("instruction", "output")
_ALPACA_INPUT = "input"
# What columns are called that hold an id or content, where they have none of the names above.
_USUAL_NAMES: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "uuid", "uid", "example_id", "doc_id", "_id"),
    "text": ("text", "body", "content", "document", "passage", "article", "code"),
    "prompt": ("prompt", "question", "instruction", "input", "query"),
    "completion": ("completion", "answer", "output", "response", "target", "reply"),
}
# Of words too, which are no ids.
_TOKENS = "tokens"
# What tokenizers write beside `input_ids`.
_TOKENIZER_OUTPUTS = (ATTENTION_MASK, "token_type_ids", "special_tokens_mask")
# What trainers write beside `input_ids`: which tokens carry loss, and where one of several sequences in a row ends.
_LOSS_MASKS = ("completion_mask", "assistant_masks", "loss_mask")
_PACKING = (POSITIONS, *SEQUENCE_LENGTHS, *SEQUENCE_ENDS, *SEQUENCE_NUMBERS)


@dataclass(frozen=True)
class ColumnRoles:
    """Kind of content and the columns that hold it: `content` maps role (text, prompt, labels ...) to column.

    `short_prompt_format` is the prompt's where the columns `optional_prompt_columns` are empty. `preference` is the column of
    preference data that says whether an answer was wanted. Beside token ids, `loss_masks` say which carry loss, and `packing`
    whether a row holds several sequences.
    """

    format: ContentFormat
    content: Mapping[str, str]
    id: str | None
    attention_mask: str | None
    loss_masks: tuple[str, ...]
    packing: tuple[str, ...]
    preference: str | None
    prompt_format: str | None
    short_prompt_format: str | None
    optional_prompt_columns: tuple[str, ...]
    metadata: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, but those of `prompt_format`."""
        single = (self.id, self.attention_mask, self.preference)
        named = (name for name in single if name is not None)
        return (*self.content.values(), *named, *self.loss_masks, *self.packing, *self.metadata)

    @property
    def packing_marks(self) -> tuple[str, ...]:
        """The columns that show where sequences of a row of token ids end; the attention mask may number them."""
        return self.packing if self.attention_mask is None else (*self.packing, self.attention_mask)

    @property
    def by_token(self) -> tuple[str, ...]:
        """The columns of a row of token ids that have an entry for each token."""
        return (*self.content.values(), *self.loss_masks, *_TOKENIZER_OUTPUTS)


def column_roles(columns: Columns, column_names: tuple[str, ...], origin: str) -> ColumnRoles:
    """Roles of the columns of one shard.

    With no content column named, `text`, `prompt` and `completion`, `messages` or `input_ids` are taken by their names.
    Beside prompt and completion or messages, `label` is taken as preference unless the metadata columns are named.
    Beside messages, also in prompt and completion, a column `tools` is taken as tool definitions and `chat_template_kwargs` as
    arguments of the chat template, and beside `conversations` a column `system` as the first
    message. Beside `input_ids`, a column `labels` is taken as labels, masks of the loss as trainers write them unless the
    metadata columns are named, and the other columns that tokenizers write are not metadata.

    Raises:
        SourceError: no kind of content is present, or several are and the settings name none.
    """
    chosen = _named_format(columns) or _format_by_names(column_names, origin)
    content = {role: getattr(columns, role) or role for role in _COLUMNS_OF_FORMAT[chosen]}
    if columns.prompt_format is not None:
        del content["prompt"]
    if chosen is ContentFormat.MESSAGES and columns.messages is None and "messages" not in column_names:
        content["messages"] = _SHAREGPT
    for role in _OPTIONAL_COLUMNS_OF_FORMAT.get(chosen, ()):
        # Beside messages, which have their own, a column `system` may be anything.
        is_known = role in column_names and (role != "system" or content.get("messages") == _SHAREGPT)
        if getattr(columns, role) is not None or (is_known and role not in (columns.metadata or ())):
            content[role] = getattr(columns, role) or role
    no_metadata = {*content.values(), *columns.prompt_columns, columns.id}
    if chosen is ContentFormat.PROMPT_COMPLETION:
        # They are content of rows whose prompt and completion are messages; of others they say nothing.
        no_metadata -= {content.get(role) for role in _FOR_TEMPLATES}
    attention_mask = None
    loss_masks: tuple[str, ...] = ()
    packing: tuple[str, ...] = ()
    if chosen is ContentFormat.INPUT_IDS:
        attention_mask = ATTENTION_MASK if ATTENTION_MASK in column_names else None
        if columns.metadata is None:
            loss_masks = _present(_LOSS_MASKS, column_names, no_metadata)
            packing = _present(_PACKING, column_names, no_metadata)
        no_metadata |= {*_TOKENIZER_OUTPUTS, *loss_masks}
    metadata, preference = columns.metadata, None
    if metadata is None:
        if chosen in _FORMATS_OF_PREFERENCES and _PREFERENCE in column_names and _PREFERENCE not in no_metadata:
            preference = _PREFERENCE
        metadata = tuple(name for name in column_names if name not in no_metadata)
    return ColumnRoles(
        chosen,
        content,
        columns.id,
        attention_mask,
        loss_masks,
        packing,
        preference,
        columns.prompt_format,
        columns.short_prompt_format,
        columns.optional_prompt_columns,
        metadata,
    )


def _present(names: Iterable[str], column_names: Collection[str], taken: Collection[str | None]) -> tuple[str, ...]:
    return tuple(name for name in names if name in column_names and name not in taken)


def content_format(content: Collection[str]) -> ContentFormat:
    """Return the kind of content that an example's columns hold."""
    return next(kind for kind, roles in _COLUMNS_OF_FORMAT.items() if roles[-1] in content)


def usual_ids(column_names: Collection[str]) -> list[str]:
    """Return the columns that are called as ids are, the most usual name first."""
    return [name for name in _USUAL_NAMES["id"] if name in column_names]


def guessed_columns(row: Mapping[str, Any]) -> Columns | None:
    """Return which columns seem to hold ids and content, by what they are usually called; None where nothing says so.

    What is told by its name alone is not named: `column_roles` takes it. The prompt of Alpaca's layout is in no column. Of
    preference data it is the answer that was chosen, or the whole chat with it.

    Args:
        row: the first one; of a table that was not read, its columns without values.
    """
    column_names = tuple(row)
    found = {role: next((name for name in names if name in column_names), None) for role, names in _USUAL_NAMES.items()}
    identified = Columns(id=found["id"])
    try:
        column_roles(identified, column_names, "")
    except SourceError:
        is_alpaca = set(_ALPACA) <= set(column_names)
    else:
        return identified
    of_several = [kind for kind, roles in _COLUMNS_OF_FORMAT.items() if set(roles) <= set(column_names)]
    if ContentFormat.MESSAGES in of_several:
        return identified.model_copy(update={"messages": "messages"})
    if set(_PAIR) <= set(column_names):
        prompt = found["prompt"]
        # With the prompt in it, a chat is one whatever is beside it.
        is_whole = isinstance(row[_CHOSEN], list) and not (prompt and isinstance(row[prompt], list))
        role = "messages" if is_whole else "completion" if prompt else "text"
        return identified.model_copy(update={"prompt": prompt if role == "completion" else None, role: _CHOSEN})
    if found["prompt"] and found["completion"] and not is_alpaca:
        return identified.model_copy(update={"prompt": found["prompt"], "completion": found["completion"]})
    if found["text"] or _are_token_ids(row.get(_TOKENS)):
        role = "text" if found["text"] else "input_ids"
        return identified.model_copy(update={role: found["text"] or _TOKENS})
    return None


def _are_token_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(entry) is int for entry in value)


def require_columns(columns: Columns, column_names: tuple[str, ...], origin: str) -> None:
    """Refuse a source that lacks a column which its settings name.

    Raises:
        SourceError: one is missing.
    """
    named = [(name, role) for role, name in columns if isinstance(name, str) and not role.endswith("prompt_format")]
    named += [(name, "prompt_format") for name in columns.prompt_columns if name not in columns.optional_prompt_columns]
    named += [(name, "metadata") for name in columns.metadata or ()]
    missing = [f"'{name}' (columns.{role})" for name, role in named if name not in column_names]
    if missing:
        wanted = ", ".join(missing)
        raise SourceError(
            f"{origin}: no column {wanted}. The columns there are: {', '.join(column_names) or 'none'}. Correct the "
            "source's `columns`."
        )


def unread_input_notice(columns: Columns, available: Iterable[str]) -> str | None:
    """Return that a part of Alpaca's prompts is read as metadata, which it may be; None where it is not."""
    if columns.prompt != _ALPACA[0] or columns.metadata is not None or _ALPACA_INPUT not in set(available):
        return None
    return (
        f"the prompt is '{columns.prompt}' alone, and '{_ALPACA_INPUT}' beside it is metadata. Where it belongs to the prompt, "
        "set columns.prompt_format; where not, name it in columns.metadata"
    )


def refuse_repeated_columns(names: Iterable[str], origin: str) -> None:
    """Refuse a table in which several columns have one name.

    Raises:
        SourceError: it is one.
    """
    repeated = [f"{n} times '{name}'" for name, n in Counter(names).items() if n > 1]
    if repeated:
        raise SourceError(
            f"{origin} has columns or fields of one name ({', '.join(repeated)}): which of them is meant cannot be told. "
            "Rename them, or keep one."
        )


def _named_format(columns: Columns) -> ContentFormat | None:
    if columns.prompt_format is not None:
        return ContentFormat.PROMPT_COMPLETION
    return next(
        (kind for kind, roles in _COLUMNS_OF_FORMAT.items() if getattr(columns, roles[0]) is not None),
        None,
    )


def _format_by_names(column_names: tuple[str, ...], origin: str) -> ContentFormat:
    found = [kind for kind, roles in _COLUMNS_OF_FORMAT.items() if set(roles) <= set(column_names)]
    if len(found) == 1:
        return found[0]
    there = ", ".join(column_names) or "none"
    if found:
        raise SourceError(
            f"{origin}: columns of several kinds of content ({', '.join(found)}) among {there}. Name the ones to use "
            "in the source's `columns`."
        )
    if _SHAREGPT in column_names:
        return ContentFormat.MESSAGES
    if set(_ALPACA) <= set(column_names):
        has_input = _ALPACA_INPUT in column_names
        example = "{instruction}\\n\\n{input}" if has_input else "{instruction}"
        short = ", with short_prompt_format for rows whose input is empty" if has_input else ""
        raise SourceError(
            f"{origin}: columns of the Alpaca layout among {there}, of which the model saw a prompt that is not in the data. "
            f'Say which: columns = {{ prompt_format = "### Instruction:\\n{example}\\n\\n### Response:\\n", '
            'completion = "output" }'
            f"{short}, in the words of the training."
        )
    preferred = (
        f" Of preference data the answer that was wanted is read: name it ({_CHOSEN}) as completion beside its prompt, or as "
        "messages where it is a whole chat."
        if _CHOSEN in column_names
        else ""
    )
    raise SourceError(
        f"{origin}: no column named text, prompt and completion, messages or input_ids. The columns there are: "
        f"{there}. Say in the source's `columns` which of them hold the content.{preferred}"
    )
