"""Data in Markdown: shown as it is, in code spans, whatever it holds.

In a code span nothing of a text is a link, an image, HTML or an entity, also of an address that renderers make links of
where it stands in plain text. What could end the span, or the row of the table that it stands in, is written so that it does
not.
"""

import base64
import re
from collections.abc import Iterable, Sequence

LONGEST = 300
"""Characters of a piece of data that are shown."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
# Letters, digits and what stands between words; no dot or colon within a word, as addresses have.
_PLAIN = re.compile(r"(?:[^\W_]|[ ,;'()/%+=-]|[.:](?= |\d|$))+")
_BEFORE_PIPE = re.compile(r"(\\*)\|")


def code(text: str) -> str:
    """Return a text on one line as a code span, cut where it is long; characters that show nothing become U+FFFD."""
    line = " ".join(text[: LONGEST + 1].split())
    shown = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…")
    if not shown:
        return "*empty*"
    longest_run = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest_run + 1)
    # A space at both ends is not shown, and keeps backticks of the text from the fence.
    pad = " " if shown[0] == "`" or shown[-1] == "`" else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def inline(text: str) -> str:
    """Return a text within a sentence, which terminals show too: as it is where no sign in it means anything, else as code."""
    return text if len(text) <= LONGEST and _PLAIN.fullmatch(text) else code(text)


def bullets(items: Iterable[str]) -> str:
    """Return a list of pieces of Markdown, each on one line."""
    return "\n".join(f"* {item}" for item in items)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str] = ()) -> str:
    """Return a table of cells of Markdown, each on one line; the columns of the names in `numbers` are set to the right."""
    rule = ["---:" if name in numbers else "---" for name in header]
    return "\n".join(f"| {' | '.join(map(_cell, cells))} |" for cells in (header, rule, *rows))


def picture(png: bytes, title: str) -> str:
    """Return a PNG as Markdown that needs no other file; the title is the program's own."""
    return f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})"


def _cell(markdown: str) -> str:
    # Parsers differ on whether a backslash before an escaped bar escapes it: an odd number of them does for all.
    return _BEFORE_PIPE.sub(lambda found: f"{found[1] * 2}\\|", markdown)
