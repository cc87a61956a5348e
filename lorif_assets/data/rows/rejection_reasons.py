"""Why rows are set aside, counted and in words: reasons that differ only in numbers and names are one."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

_SHOWN = 3
# A file's name is the only one that stands in a reason without quotes.
_FILE = re.compile(r"^[^:]*\.\w+(?=: )")
_NAME = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
# Not the 8 of UTF-8.
_NUMBER = re.compile(r"(?<![\w-])-?\d+(?:[.,]\d+)*")


def count_reasons(reasons: Iterable[str]) -> dict[str, int]:
    """Return how many rows each kind of reason set aside, the most frequent kind first.

    A kind is called by its one reason, or by what its reasons have in common, with N for numbers and '...' for names.
    """
    kinds: dict[str, Counter[str]] = {}
    for reason in reasons:
        kinds.setdefault(_kind(reason), Counter())[reason] += 1
    counts = {next(iter(found)) if len(found) == 1 else kind: found.total() for kind, found in kinds.items()}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def in_words(counts: Mapping[str, int]) -> str:
    """Return counted reasons as one line: the most frequent ones, and how many rows the others set aside."""
    listed = [f"{reason} ({count:,})" for reason, count in list(counts.items())[:_SHOWN]]
    others = sum(list(counts.values())[_SHOWN:])
    return "; ".join([*listed, *([f"other reasons ({others:,})"] if others else [])])


def first_and_counts(reasons: Sequence[str]) -> str:
    """Return the first of some rows' reasons and, where there are several, all of them counted."""
    counted = f"; by reason: {in_words(count_reasons(reasons))}" if len(reasons) > 1 else ""
    return f"the first: {reasons[0]}{counted}"


def rows_set_aside(counts: Mapping[str, int]) -> str:
    """Return counted reasons as one line that begins with how many rows they set aside."""
    count = sum(counts.values())
    return f"{count:,} {'row' if count == 1 else 'rows'} set aside: {in_words(counts)}"


def _kind(reason: str) -> str:
    return _NUMBER.sub("N", _NAME.sub("'...'", _FILE.sub("'...'", reason)))
