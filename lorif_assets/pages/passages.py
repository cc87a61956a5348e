"""How much of a passage a page shows, folds away and leaves out, and how metadata become short labels."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup, escape

from lorif_assets.data.passages import Part, passage_parts
from lorif_assets.pages.number_format import NOT_FINITE

WITHDRAWN = "(no longer in the training data)"
"""What stands for the text of an example that was scored, and withdrawn since."""
SHOWN_LINES = 8
LINE_COLUMNS = 80
MOST_CHARACTERS = 4_000
MOST_LABEL_CHARACTERS = 120

_BETWEEN_TURNS = "\n\n"
_FEWEST_FOLDED_LINES = 4
_WORD_COLUMNS = 40

# Control characters are invisible or, as NUL, illegal in HTML, and a lone surrogate cannot be encoded.
_VISIBLE = (
    {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\t\n\r"}
    | {0x7F: 0x2421}
    | dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
)


@dataclass(frozen=True)
class Clipped:
    """A passage in three parts: shown at once, shown on request, and not on the page (a number of characters)."""

    shown: str
    folded: str
    n_left_out: int


@dataclass(frozen=True)
class ClippedPassage:
    """The same of a passage piece by piece."""

    shown: tuple[Part, ...]
    folded: tuple[Part, ...]
    n_left_out: int

    @property
    def n_beyond(self) -> int:
        """Characters that are not shown at once."""
        return sum(len(part.text) for part in self.folded) + self.n_left_out


def example_parts(row: Mapping[str, Any] | None) -> tuple[Part, ...]:
    """Return what a training example says, piece by piece; of one that was withdrawn, that it was."""
    return passage_parts(row) if row else (Part(WITHDRAWN, carries_loss=True),)


def visible(text: str) -> str:
    """The text with control characters as their pictures and lone surrogates as the replacement character."""
    return text.translate(_VISIBLE)


def codes(text: str) -> Markup:
    """Return a sentence as markup: what stands between two backticks is code, and all is escaped."""
    pieces = visible(text).split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(piece)
        if at % 2 and at + 1 < len(pieces)
        else escape(f"`{piece}" if at % 2 else piece)
        for at, piece in enumerate(pieces)
    )


def clip_end(text: str) -> Clipped:
    """Show the first SHOWN_LINES lines (of about LINE_COLUMNS), fold the rest up to MOST_CHARACTERS."""
    kept = text[:MOST_CHARACTERS]
    split = _fold_position(kept)
    return Clipped(shown=kept[:split], folded=kept[split:], n_left_out=len(text) - len(kept))


def clip_passage(passage: str | Sequence[Part]) -> ClippedPassage:
    """The same of a passage, all of which carries loss if it is one text; a turn of a chat begins with who speaks."""
    parts = (Part(passage, carries_loss=True),) if isinstance(passage, str) else passage
    pieces = [piece for at, part in enumerate(parts) for piece in (*_speaker(part, is_first=not at), part)]
    clipped = clip_end("".join(piece.text for piece in pieces))
    split = len(clipped.shown)
    return ClippedPassage(
        _between(pieces, 0, split), _between(pieces, split, split + len(clipped.folded)), clipped.n_left_out
    )


def _speaker(part: Part, *, is_first: bool) -> tuple[Part, ...]:
    return (Part(f"{'' if is_first else _BETWEEN_TURNS}[{part.role}] ", carries_loss=False),) if part.role else ()


def _between(pieces: Sequence[Part], start: int, end: int) -> tuple[Part, ...]:
    """Return the characters from one place to another, in their pieces."""
    found, at = [], 0
    for piece in pieces:
        if text := piece.text[max(start - at, 0) : max(end - at, 0)]:
            found.append(replace(piece, text=text))
        at += len(piece.text)
    return tuple(found)


def clip_start(text: str) -> Clipped:
    """The same from the other end: the last lines are shown, what comes before is folded."""
    mirrored = clip_end(text[::-1])
    shown, folded = mirrored.shown[::-1], mirrored.folded[::-1]
    if folded and shown.startswith("\n"):
        shown, folded = shown[1:], f"{folded}\n"
    return Clipped(shown, folded, mirrored.n_left_out)


def first_line(text: str, characters: int = MOST_LABEL_CHARACTERS) -> str:
    """The beginning of the text on one line."""
    words = " ".join(text[: 4 * characters].split())
    return words if len(words) <= characters else f"{words[: characters - 1]}…"


def last_line(text: str, characters: int = MOST_LABEL_CHARACTERS) -> str:
    """The end of the text on one line."""
    return first_line(text[::-1], characters)[::-1]


def labels(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Key and value of every entry that says something, each on one line and of bounded length."""
    said = ((key, value) for key, value in metadata.items() if value is not None and value not in ("", [], {}))
    return [(first_line(str(key)), first_line(_plain(value))) for key, value in said]


def _plain(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return NOT_FINITE
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return ", ".join(map(str, value))
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _fold_position(text: str) -> int:
    """Where to fold: the end of the last shown line; the end of the text if hardly anything would be folded."""
    position, lines_left = 0, SHOWN_LINES
    for line in text.splitlines(keepends=True):
        height = max(1, math.ceil(len(line) / LINE_COLUMNS))
        if height > lines_left:
            position += _word_boundary(line, lines_left * LINE_COLUMNS)
            break
        position += len(line)
        lines_left -= height
        if not lines_left:
            break
    folded_lines = sum(max(1, math.ceil(len(line) / LINE_COLUMNS)) for line in text[position:].splitlines())
    return position if folded_lines >= _FEWEST_FOLDED_LINES else len(text)


def _word_boundary(line: str, position: int) -> int:
    """The last white space shortly before the position; the position itself within an unbroken string."""
    return max(line.rfind(" ", position - _WORD_COLUMNS, position), 0) or position
