"""Texts that look the same and are other characters: normal forms of Unicode."""

import unicodedata
from typing import Literal

_FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")


def in_each_form(text: str) -> tuple[str, ...]:
    """Return a text as it is, and in its normal forms where those differ."""
    return tuple(dict.fromkeys((text, *(unicodedata.normalize(form, text) for form in _FORMS))))


def as_written_in(text: str, part: str) -> str:
    """Return a part of a text in the normal form that the text has it in; unchanged where it has it in none."""
    return next((one for one in in_each_form(part) if one in text), part)
