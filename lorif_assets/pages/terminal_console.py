"""The terminal, which data cannot steer."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

_KEPT = {ord("\t"), ord("\n")}
_CONTROLS = [code for code in [*range(0x20), *range(0x7F, 0xA0)] if code not in _KEPT]
# Embeddings, overrides and isolates turn round what stands beside the text that begins one.
_DIRECTIONS = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
# None of these takes room, so a table without them is the table that was laid out.
_LEFT_OUT = dict.fromkeys([*_CONTROLS, *_DIRECTIONS])


class TerminalConsole(Console):
    """A console that leaves control characters out of what it prints, in place of handing them to the terminal.

    Ids, texts, metadata and names of files are strangers': an escape sequence among them would clear the screen, set its
    title or hide what was printed before.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of what is printed; those by which the console itself steers stay as they are."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(text.translate(_LEFT_OUT), style)
