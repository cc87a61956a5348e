"""Texts that look the same and are other characters: normal forms of Unicode."""

import unicodedata
from typing import Literal

_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")


def as_written_in(text: str, part: str) -> str:
    """Return a part of a text in the normal form that the text has it in; unchanged where it has it in none."""
    forms = (part, *(unicodedata.normalize(form, part) for form in _FORMS))
    return next((one for one in forms if one in text), part)
