"""Values of Arrow tables as Python's, one by one where some have none: a date beyond the year 9999, bytes that are no text.

A value that cannot be read stands in its row as what is wrong with it. The row is set aside if the value is needed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class UnreadableValue:
    """A value that Python has no object for, and why."""

    reason: str

    def __str__(self) -> str:
        return f"<{self.reason}>"


def rows_of(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows as Python's objects, with `UnreadableValue` for values that are none."""
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    # What values raise is of many kinds: UnicodeDecodeError, OverflowError, KeyError of a time zone.
    except Exception:
        columns = [values_of(table.column(k)) for k in range(table.num_columns)]
        return [dict(zip(table.schema.names, values, strict=True)) for values in zip(*columns, strict=True)]
    return rows


def values_of(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return the values of a column in the same way."""
    try:
        values: list[Any] = array.to_pylist()
    except Exception:
        return [_value(scalar) for scalar in array]
    return values


def unreadable(values: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Return why values cannot be read, by the names of their columns."""
    return {name: value.reason for name, value in values if type(value) is UnreadableValue}


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:
        return UnreadableValue(f"not UTF-8: {error.reason} at byte {error.start}")
    except LookupError as error:
        return UnreadableValue(f"the time zone {error} is unknown")
    except (OverflowError, ValueError) as error:
        if pa.types.is_temporal(scalar.type):
            return UnreadableValue(f"a {scalar.type} out of range: dates and times are of the years 1 to 9999")
        return UnreadableValue(f"{type(error).__name__}: {error}")
    except Exception as error:
        return UnreadableValue(f"{type(error).__name__}: {error}")
