"""Metadata as values that can be picked: filtered and grouped by."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any


def values_of(metadata: Mapping[str, Any], column: str) -> tuple[str, ...]:
    """Return what an example has in a column: each entry of a list, else one value; as JSON where it is no text.

    None where it says nothing.
    """
    value = metadata.get(column)
    entries = value if isinstance(value, list) else [value]
    return tuple(dict.fromkeys(_text(entry) for entry in entries if entry not in (None, "", [], {})))


def counted_values(examples: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[str, int]]]:
    """Return for each metadata column its values and how many examples have them, the most frequent first."""
    counts: dict[str, Counter[str]] = {}
    for metadata in examples:
        for column in metadata:
            counts.setdefault(column, Counter()).update(values_of(metadata, column))
    return {
        column: sorted(found.items(), key=lambda item: (-item[1], item[0])) for column, found in counts.items() if found
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
