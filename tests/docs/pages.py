"""The pages of the documentation, their code blocks, code spans, links and anchors."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = tuple(
    sorted(
        path.relative_to(ROOT).as_posix()
        for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks/README.md")
    )
)

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ANY_BLOCK = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code: its page, its line there, and its lines."""

    page: str
    line: int
    code: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def text(page: str) -> str:
    return (ROOT / page).read_text()


def blocks(language: str) -> list[Block]:
    """All blocks in one language."""
    return [
        Block(page, text(page).count("\n", 0, found.start(2)) + 1, found[2])
        for page in PAGES
        for found in _BLOCK.finditer(text(page))
        if found[1] == language
    ]


def prose(page: str) -> str:
    """A page without its blocks."""
    return _ANY_BLOCK.sub("", text(page))


def spans(page: str) -> Iterator[str]:
    """What stands between backticks."""
    yield from re.findall(r"`([^`\n]+)`", prose(page))


def links(page: str) -> Iterator[str]:
    """Targets of links and pictures within the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))
    yield from (target for target in targets if "://" not in target)


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, which GitHub and MkDocs make alike of the characters used here."""
    return {_anchor(heading) for heading in headings(page)}


def headings(page: str) -> list[str]:
    return re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)


def _anchor(heading: str) -> str:
    words = re.sub(r"[^\w\s-]", "", heading.strip().lower())
    return re.sub(r"\s+", "-", words)
