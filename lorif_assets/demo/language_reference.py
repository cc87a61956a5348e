"""The Python language reference as every CPython carries it for `help()`: sections with the topic they treat."""

import re
from collections.abc import Mapping

from lorif_assets.demo.passages import Entry
from lorif_assets.errors import SourceError

SOURCE = "language reference"

_HEADING = re.compile(r"^(?P<title>\S.*)\n(?P<line>(?P<mark>[*=~-])(?P=mark){2,})$", re.MULTILINE)
_RANKS = "*=-~"


def topics_of_this_python() -> Mapping[str, str]:
    """The texts of `help()`'s topics by topic name, e.g. "with".

    Raises:
        SourceError: this Python was installed without them.
    """
    try:
        from pydoc_data.topics import topics
    except ModuleNotFoundError as error:
        raise SourceError(
            "the demo reads the language reference from `pydoc_data.topics`, which this Python lacks: install the "
            "full standard library of this Python (Debian: `apt install libpython3-stdlib`)"
        ) from error
    return topics


def sections(topics: Mapping[str, str]) -> dict[str, list[list[Entry]]]:
    """Cut topics at their headings and file every section under the most specific topic that treats it.

    A section belongs to the topic that bears its heading as a title ("compound" repeats the section 'The "with"
    statement', which is the topic "with"), else to the nearest heading above it that is some topic's title. The
    shortest topics come first, so that of a text given twice the copy in the specific topic is the first one.

    Args:
        topics: texts by topic name; the first heading of a text is its title.

    Returns:
        Sections (each a group of one entry) by topic name, in the order in which they were met.
    """
    by_length = sorted(topics, key=lambda name: (len(topics[name]), len(name), name))
    owners: dict[str, str] = {}
    for name in by_length:
        if heading := _HEADING.search(topics[name]):
            owners.setdefault(heading["title"], name)
    found: dict[str, list[list[Entry]]] = {}
    for name in by_length:
        path: list[str] = []
        for title, rank, body in _cut_at_headings(topics[name]):
            path = [*path[:rank], title]
            owner = next((owners[above] for above in reversed(path) if above in owners), name)
            if body:
                found.setdefault(owner, []).append([Entry(title or name, f"{title}\n{body}".lstrip())])
    return found


def _cut_at_headings(text: str) -> list[tuple[str, int, str]]:
    """(title, rank, body) of each section; rank 0 is the title of the text, and of what precedes any heading."""
    headings = list(_HEADING.finditer(text))
    bounds = [*(heading.start() for heading in headings), len(text)]
    return [("", 0, text[: bounds[0]].strip("\n"))] + [
        (heading["title"], _RANKS.index(heading["mark"]), text[heading.end() : end].strip("\n"))
        for heading, end in zip(headings, bounds[1:], strict=True)
    ]
