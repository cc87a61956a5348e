"""The date that chat templates write: a given one in place of today's, in English whatever the locale.

Templates ask for today's date by `strftime_now(format)`. What transformers renders them with is given plain data alone, so
a macro of that name, written in front of the template, looks up the pieces of the date.
"""

from datetime import date

ASKS = "strftime_now"
MACRO = (
    "{% macro strftime_now(format) %}{% set found = namespace(text=format) %}"
    "{% for piece, value in date_pieces.items() %}{% set found.text = found.text.replace(piece, value) %}{% endfor %}"
    "{{ found.text }}{% endmacro %}\n"
)
"""One line, which leaves nothing in the rendered text; it reads the variable `date_pieces`."""

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)
_NUMBERS = "CdDeFfGgHIjklmMRSTuUVwWyYzZ"
_PADDED = "deHIjklmMSUVWy"
_PERCENT = "\ufdd0"


def date_pieces(day: date) -> dict[str, str]:
    """Return the text of each directive of strftime at the beginning of a day, to be replaced in this order."""
    weekday, month = _DAYS[day.weekday()], _MONTHS[day.month - 1]
    clock = "00:00:00"
    words = {"A": weekday, "a": weekday[:3], "B": month, "b": month[:3], "h": month[:3], "p": "AM", "P": "am"}
    words |= {"c": f"{weekday[:3]} {month[:3]} {day.day:2} {clock} {day.year}", "x": f"{day:%m/%d/%y}", "X": clock}
    words |= {"r": "12:00:00 AM", "n": "\n", "t": "\t"}
    numbers = {code: day.strftime(f"%{code}") for code in _NUMBERS}
    unpadded = {f"%-{code}": numbers[code].lstrip("0 ") or "0" for code in _PADDED}
    return {
        "%%": _PERCENT,
        **unpadded,
        **{f"%{code}": text for code, text in {**words, **numbers}.items()},
        _PERCENT: "%",
    }
