"""Values of data files as JSON values."""

import math
from collections.abc import Mapping
from datetime import date, time
from typing import Any


def json_value(value: Any) -> Any:
    """The value as JSON can hold it, the same for the same value in every process.

    Dates and times become ISO 8601 text, NaN and infinities null, bytes a note of their length, anything else unknown
    to JSON its text.
    """
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {str(name): json_value(inner) for name, inner in value.items()}
        case list() | tuple():
            return [json_value(inner) for inner in value]
        case bytes():
            return f"<{len(value)} bytes>"
        case date() | time():  # datetime is a date
            return value.isoformat()
    return value if isinstance(value, bool | int | float | str | None) else str(value)


def without_nulls(value: Any) -> Any:
    """A JSON value whose objects, at every level, have no field that is null; entries of lists stay.

    Arrow gives each object of a list the fields of all others, as null: they are not the object's own.
    """
    match value:
        case Mapping():
            return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}
        case list():
            return [without_nulls(inner) for inner in value]
    return value
