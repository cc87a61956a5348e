"""The id of a row as text: the same for the same value, whichever format, type or writer it came through."""

from collections.abc import Collection, Iterable, Mapping
from datetime import date, time
from decimal import Decimal
from uuid import UUID

from lorif_assets.data.rows.rejected import encodable
from lorif_assets.data.rows.unusable import UnusableRowError

_HEX = "0x"
# Beyond it, neighbouring integers are one float.
_LARGEST_EXACT_FLOAT = 2**53


def text_of_id(value: object, column: str) -> str:
    """Return the text of an id.

    Text is taken as it is, an integer in digits. A decimal loses zeros at its end, so that 12.50 is "12.5" in a column of
    any scale; a float that is a whole number is written as one ("12", as other rows' nulls make floats of integers), any
    other in the fewest digits that give it back. Bytes are UTF-8 where they are printable text, else hexadecimal after
    `0x`. Dates, times and UUIDs are in their usual form.

    Args:
        value: as the source has it.
        column: where it is from, for the message.

    Raises:
        UnusableRowError: it is null, empty, not a number, or of a type that cannot tell rows apart.
    """
    match value:
        case bool():
            text = None
        case str():
            text = encodable(value)
        case bytes():
            text = _text_of_bytes(value)
        case int() | UUID():
            text = str(value)
        case Decimal() if value.is_finite():
            text = _without_zeros(format(value, "f"))
        case float() if abs(value) < _LARGEST_EXACT_FLOAT:
            text = str(int(value)) if value.is_integer() else repr(value)
        case float() if value - value == 0:  # neither infinite nor NaN
            text = repr(value)
        case date() | time():
            text = value.isoformat()
        case _:
            text = None
    if text:
        return text
    shown = "empty" if text == "" else "null" if value is None else type(value).__name__
    if isinstance(value, Decimal | float):
        shown = str(value)
    raise UnusableRowError(f"id (column '{column}') is {shown}, not text or a number")


def naming_column(columns: Iterable[str], rows: Collection[Mapping[str, object]]) -> str | None:
    """Return the first of the columns that has an id of its own for each row; None where none has."""
    return next((name for name in columns if _tell_apart(row.get(name) for row in rows)), None)


def _tell_apart(values: Iterable[object]) -> bool:
    try:
        ids = [text_of_id(value, "") for value in values]
    except UnusableRowError:
        return False
    return len({*ids}) == len(ids)


def _text_of_bytes(value: bytes) -> str:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return _HEX + value.hex()
    # Text that begins like hexadecimal bytes could be mistaken for them.
    return text if text.isprintable() and not text.startswith(_HEX) else _HEX + value.hex()


def _without_zeros(digits: str) -> str:
    text = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return "0" if text == "-0" else text
