"""What a query asks about, where that is not the loss of one completion: a span of it, a contrast, a weighted set, a scalar.

Each is one field of a query file. It is stored with the query as JSON in its canonical form, and its hash covers it.
"""

import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorif_assets.config.settings import Settings
from lorif_assets.data.chats.conversations import Conversation, is_trained
from lorif_assets.data.content.columns import ContentFormat
from lorif_assets.data.content.example_content import parsed_field
from lorif_assets.data.content.normal_forms import as_written_in
from lorif_assets.data.content.scalars import scalar_source
from lorif_assets.data.content.weighted_sets import WEIGHTED, read_members
from lorif_assets.data.rows.json_values import json_value
from lorif_assets.data.rows.unusable import UnusableRowError

SPAN, AGAINST, SCALAR = "span", "against", "scalar"
OBJECTIVES = (SPAN, AGAINST, WEIGHTED, SCALAR)
_VALUES = {
    AGAINST: "difference of the losses",
    WEIGHTED: "weighted sum of the losses",
    SCALAR: "scalar",
}


@dataclass(frozen=True)
class Effects:
    """What training on either side of a query's examples did, in words."""

    proponents: str
    opponents: str


_LOSS_EFFECTS = Effects("made the completion more likely", "made the completion less likely")
_EFFECTS: Mapping[str, Effects] = {
    SPAN: Effects("made that part of the completion more likely", "made that part of the completion less likely"),
    AGAINST: Effects(
        "made the completion more likely than the other", "made the completion less likely than the other"
    ),
    WEIGHTED: Effects(
        "made the completions, by their weights, more likely", "made the completions, by their weights, less likely"
    ),
    SCALAR: Effects("raised the scalar", "lowered the scalar"),
}
_ENDS = re.compile(r"\s*\[\s*-?\d+\s*,\s*-?\d+\s*\]\s*")


@dataclass(frozen=True)
class ScalarRules:
    """Whether queries may name Python code, and the folder that files of it are relative to."""

    allowed: bool
    base: Path

    @classmethod
    def of(cls, settings: Settings) -> "ScalarRules":
        """Return those of a project's settings."""
        return cls(settings.queries.allow_scalars, settings.base)


NO_SCALARS = ScalarRules(allowed=False, base=Path())


def asks_for_loss(objective: Container[str]) -> bool:
    """Return whether a query asks about the loss of what it says, or of a span of it.

    Args:
        objective: the field of the query file that says what is asked about; empty where there is none.
    """
    return not any(name in objective for name in _VALUES)


def value_name(objective: Container[str]) -> str:
    """Return what the number is that a query has at a checkpoint: a loss, or what it asks about instead."""
    return next((words for name, words in _VALUES.items() if name in objective), "loss")


def effects(objective: Container[str]) -> Effects:
    """Return what training on the examples of a query did, by their side."""
    return next((words for name, words in _EFFECTS.items() if name in objective), _LOSS_EFFECTS)


def objective_fields(column_names: Sequence[str], metadata: Sequence[str] | None) -> tuple[str, ...]:
    """Return which columns of a query file say what is asked about; one that the settings name as metadata is that."""
    return tuple(name for name in OBJECTIVES if name in column_names and name not in (metadata or ()))


def read_objective(
    values: Mapping[str, Any],
    fields: Sequence[str],
    kind: ContentFormat,
    content: Mapping[str, Any],
    scalar_rules: ScalarRules,
) -> str | None:
    """Return what a query asks about as JSON, or None where it is the loss of what it says.

    Args:
        values: of the row.
        fields: columns that say it.
        kind: of the row's content.
        content: of the row, in canonical form.
        scalar_rules: about Python code.

    Raises:
        UnusableRowError: a value cannot be used, or two fields have one.
    """
    given = [name for name in fields if values.get(name) is not None and values[name] != ""]
    if not given:
        return None
    if len(given) > 1:
        raise UnusableRowError(f"{' and '.join(map(repr, given))} are both set; a query has one of them")
    (name,) = given
    value = values[name]
    if name == SPAN:
        read: Any = _span(value, content)
    elif name == AGAINST:
        read = _against(value, kind, content)
    elif name == WEIGHTED:
        read = read_members(value)
    else:
        read = _scalar(value, scalar_rules)
    # In the order of the data: that of a call's arguments is what a model sees.
    return json.dumps({name: read}, ensure_ascii=False)


def _span(value: Any, content: Mapping[str, Any]) -> str | list[int]:
    """Return a span as text or as the first character of the completion and the one behind the last."""
    said = content.get("completion") or content.get("text")
    # In CSV both are text; what the query says itself is meant as that.
    if isinstance(value, str) and _ENDS.fullmatch(value) and value not in (said or ""):
        value = parsed_field(SPAN, value)
    if isinstance(value, str):
        value = as_written_in(said or "", value)
        if said is not None and said.count(value) != 1:
            times = said.count(value)
            raise UnusableRowError(
                f"the span {value!r} occurs {times} times in what the query says; a text occurs once, else give [start, end] "
                "in characters"
            )
        return value
    if not isinstance(value, Sequence) or len(value) != 2 or not all(type(end) is int for end in value):
        raise UnusableRowError(
            f"the span is {json.dumps(json_value(value))}, neither a text nor [start, end] in characters"
        )
    start, end = value
    if said is None:
        raise UnusableRowError("a span in characters needs a completion or a text; name the span of a chat by its text")
    if not 0 <= start < end <= len(said):
        raise UnusableRowError(
            f"the span [{start}, {end}] is not within the {len(said)} characters of what the query says"
        )
    return [start, end]


def _against(value: Any, kind: ContentFormat, content: Mapping[str, Any]) -> str:
    if kind == ContentFormat.INPUT_IDS:
        raise UnusableRowError(f"'{AGAINST}' is for completions, texts and chats, not for {kind}")
    said = content.get("completion") or content.get("text") or _last_answer(content["messages"])
    if not isinstance(value, str) or not value.strip():
        raise UnusableRowError(f"'{AGAINST}' is {json.dumps(json_value(value))}, not the text of another completion")
    if value == said:
        raise UnusableRowError(f"'{AGAINST}' is the completion itself, so that the contrast is nothing")
    return value


def _last_answer(stored: str) -> str:
    """Return what the assistant says at the end of a chat, in whose place another answer can stand."""
    last = Conversation.parse(stored).messages[-1]
    if last["role"] != "assistant" or not is_trained(last):
        raise UnusableRowError(
            f"'{AGAINST}' is another answer at the end of a chat, and this one ends with a message by {last['role']!r} that "
            "carries no loss"
        )
    return str(last["content"])


def _scalar(value: Any, rules: ScalarRules) -> dict[str, str]:
    if not isinstance(value, str):
        raise UnusableRowError(
            f"'{SCALAR}' is {json.dumps(json_value(value))}, not 'module:function' or 'file.py:function'"
        )
    if not rules.allowed:
        raise UnusableRowError(
            f"'{SCALAR}' names Python code, {value!r}, which is not run: set queries.allow_scalars for files that you trust"
        )
    return scalar_source(value, rules.base)
