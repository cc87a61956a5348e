"""Values of data files as JSON values."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from datetime import date, time
from typing import Any

DEEPEST = 100
"""Lists and objects in one another. Python follows about 900, fewer the deeper it stands itself."""

# Of a key, in a message.
_LONGEST_KEY = 100


class RepeatedKeyError(ValueError):
    """An object has two values for one key; which of them is meant, its text does not say."""


class NestedTooDeepError(ValueError):
    """Lists and objects are nested deeper than programs that walk through them, this one among them, can follow."""

    def __init__(self) -> None:
        super().__init__(f"lists and objects are nested more than {DEEPEST} deep")


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a JSON object, for parsers that take an `object_pairs_hook`.

    Raises:
        RepeatedKeyError: two of them have one key.
    """
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated, count = next((key, n) for key, n in Counter(key for key, _ in pairs).items() if n > 1)
        raise RepeatedKeyError(
            f"the key {repeated[:_LONGEST_KEY]!r} is there {count} times in one object: keep one of them"
        )
    return fields


def parsed_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is none, has an object with a repeated key, or is nested too deep.
    """
    try:
        value = json.loads(text, object_pairs_hook=unrepeated)
    except RecursionError as error:
        raise NestedTooDeepError from error
    # What is not opened is not nested.
    if text.count("[") + text.count("{") > DEEPEST:
        refuse_too_deep(value)
    return value


def refuse_too_deep(value: Any) -> None:
    """Refuse a value in which lists and objects are nested more than `DEEPEST` times.

    Raises:
        NestedTooDeepError: it is one.
    """
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | Mapping)
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(inner, list | Mapping)
        ]
        if not level:
            return
    raise NestedTooDeepError


def json_value(value: Any) -> Any:
    """The value as JSON can hold it, the same for the same value in every process.

    Dates and times become ISO 8601 text, NaN and infinities null, bytes a note of their length, anything else unknown
    to JSON its text.

    Raises:
        NestedTooDeepError: as it says.
    """
    return _json_value(value, DEEPEST)


def _json_value(value: Any, levels: int) -> Any:
    # Most values are these, and to find that they are no mapping takes as long as all the rest.
    if value is None or isinstance(value, str | int):
        return value
    if not levels and isinstance(value, Mapping | list | tuple):
        raise NestedTooDeepError
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(name): _json_value(inner, levels - 1) for name, inner in value.items()}
        case list() | tuple():
            return [_json_value(inner, levels - 1) for inner in value]
    return _text_of(value)


def _text_of(value: Any) -> str:
    match value:
        case bytes():
            return f"<{len(value)} bytes>"
        case date() | time():  # datetime is a date
            return value.isoformat()
    return str(value)


def without_nulls(value: Any) -> Any:
    """A JSON value whose objects, at every level, have no field that is null; entries of lists stay.

    Arrow gives each object of a list the fields of all others, as null: they are not the object's own.
    """
    match value:
        case str():
            return value
        case Mapping():
            return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
        case list():
            return [without_nulls(inner) for inner in value]
    return value
