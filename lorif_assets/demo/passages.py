"""Cutting titled text into passages at its paragraph boundaries, and refusing repeated passages."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

SHORTEST = 240
"""Characters below which neighbouring entries are joined: about 60 tokens of the demo's tokenizer."""

LONGEST = 640
"""Characters above which an entry is cut: about 180 tokens of the demo's tokenizer."""

_SHINGLE_WORDS = 5
_REPEATED_SHARE = 0.6


@dataclass(frozen=True)
class Entry:
    """A titled piece of a document: a section of the language reference, a docstring, or a part of one."""

    title: str
    text: str


def gather(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Group neighbouring entries so that every group has `SHORTEST` characters, if the entries have that many in all."""
    groups: list[list[Entry]] = []
    for entry in entries:
        if groups and _length(groups[-1]) < SHORTEST:
            groups[-1].append(entry)
        else:
            groups.append([entry])
    if len(groups) > 1 and _length(groups[-1]) < SHORTEST:
        groups[-2:] = [groups[-2] + groups[-1]]
    return groups


def cut(entries: Sequence[Entry]) -> list[Entry]:
    """Cut a group of entries into near-equal pieces of whole paragraphs, mostly below `LONGEST` characters.

    A piece has the title of the entry in which it begins.
    """
    units = [Entry(entry.title, paragraph) for entry in entries for paragraph in paragraphs(entry.text)]
    return [Entry(piece[0].title, "\n\n".join(unit.text for unit in piece)) for piece in _pieces(units)]


def paragraphs(text: str) -> list[str]:
    """Split text at blank lines, except after a colon, and paragraphs above `LONGEST` characters (tables) at lines."""
    blocks = [block.rstrip() for block in re.split(r"(?<!:)\n(?:[ \t]*\n)+", text.strip("\n")) if block.strip()]
    return [
        "\n".join(line.text for line in piece)
        for block in blocks
        for piece in _pieces([Entry("", line) for line in block.split("\n")])
    ]


def _length(entries: Sequence[Entry]) -> int:
    return sum(len(entry.text) for entry in entries)


def _pieces(units: Sequence[Entry]) -> list[list[Entry]]:
    """Deal whole units, in order, to as few near-equal pieces as possible with `LONGEST` characters on average."""
    length = _length(units)
    n_pieces = -(-length // LONGEST)
    numbered, start = list[tuple[int, Entry]](), 0
    for unit in units:
        numbered.append((int((start + len(unit.text) / 2) * n_pieces / length), unit))
        start += len(unit.text)
    return [[unit for _, unit in piece] for _, piece in groupby(numbered, key=lambda pair: pair[0])]


class RepetitionFilter:
    """Remembers the word sequences of the passages it let through, and refuses passages made mostly of those."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def is_new(self, text: str) -> bool:
        """Whether at least 40 % of the text's five-word sequences are unheard of; if so, they are remembered.

        White space and case do not count. A text of fewer than five words is one sequence.
        """
        words = text.lower().split()
        shingles = {tuple(words[i : i + _SHINGLE_WORDS]) for i in range(max(1, len(words) - _SHINGLE_WORDS + 1))}
        if len(shingles & self._seen) > _REPEATED_SHARE * len(shingles):
            return False
        self._seen |= shingles
        return True
