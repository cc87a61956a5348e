"""A span of what was said, as an address has it: its two ends in characters, as 12-27, or its text."""

import re
from dataclasses import dataclass

from lorif_assets.data.content.normal_forms import as_written_in

_ENDS = re.compile(r"(\d{1,9})-(\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class MarkedSpan:
    """A text in three pieces: before a span, the span, and after it; the first two are empty where nothing is marked."""

    before: str
    marked: str
    after: str


def span_value(span: str) -> str | list[int]:
    """Return a span as the field `span` of a query file has it."""
    ends = _ENDS.fullmatch(span)
    return [int(ends[1]), int(ends[2])] if ends else span


def marked_span(text: str, span: str) -> MarkedSpan:
    """Return a text with a span of it marked; one that is not in it marks nothing."""
    value = span_value(span)
    if isinstance(value, str):
        value = as_written_in(text, value)
        start = text.find(value) if value else -1
        end = start + len(value)
    else:
        start, end = value
    if not 0 <= start < end <= len(text):
        return MarkedSpan("", "", text)
    return MarkedSpan(text[:start], text[start:end], text[end:])
