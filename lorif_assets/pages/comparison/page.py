"""A comparison of checkpoints as one self-contained HTML page, in the look of the attribution report."""

from collections.abc import Sequence
from functools import partial

from lorif_assets.attribution.scores.stored_rankings import WHEN_WHICH
from lorif_assets.mathematics.scores.rank_overlap import PERSISTENCE
from lorif_assets.pages import number_format
from lorif_assets.pages.comparison.content import LEADING, ComparisonContent
from lorif_assets.pages.comparison.plots import movement_figure
from lorif_assets.pages.environment import page_environment
from lorif_assets.pages.look import data_uris

_TEMPLATE = "comparison.html.jinja"
_NONE = "\N{EN DASH}"
_LINE_WIDTH, _LINE_HEIGHT = 100, 24


def render(content: ComparisonContent) -> str:
    """The page: no scripts, no network, no other files; the same content gives the same page."""
    environment = page_environment(
        "lorif_assets.pages.comparison", significant=_significant, signed=number_format.score, overlap=_overlap
    )
    return environment.get_template(_TEMPLATE).render(
        content=content,
        leading=LEADING,
        when_which=WHEN_WHICH,
        persistence=PERSISTENCE,
        seen=1 - PERSISTENCE**content.depth,
        pictures=data_uris(partial(movement_figure, content)) if content.compared.neighbours else {},
        points=partial(_points, spread=max((_spread(query.losses) for query in content.queries), default=0.0)),
        line={"width": _LINE_WIDTH, "height": _LINE_HEIGHT},
    )


def _significant(value: float | None) -> str:
    return _NONE if value is None else number_format.significant(value)


def _overlap(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _spread(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if known else 0.0


def _points(values: Sequence[float | None], spread: float) -> str:
    """The points of a small SVG line through the values that are not None, the largest at the top.

    `spread` is the difference that the whole height means: lines of one page share it, so that a steeper one moved more.
    """
    known = [(index, value) for index, value in enumerate(values) if value is not None]
    middle = (min(value for _, value in known) + max(value for _, value in known)) / 2
    last = max(len(values) - 1, 1)
    return " ".join(
        f"{index / last * _LINE_WIDTH:.1f},{((middle - value) / (spread or 1) + 0.5) * _LINE_HEIGHT:.1f}"
        for index, value in known
    )
