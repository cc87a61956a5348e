"""Picture of a comparison: the losses and the overlap of neighbouring rankings along the checkpoints."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lorif_assets.pages.comparison.content import ComparisonContent
from lorif_assets.pages.look import FIGURE_HEIGHT_PX, FIGURE_WIDTH_PX, Theme

_DPI = 200
_TEXT_POINTS = 8.0
_MOST_QUERY_LINES = 200
_MOST_NAMES = 7
_NAME_CHARACTERS = 16


def movement_figure(content: ComparisonContent, theme: Theme) -> Figure:
    """Two charts above each other: loss per token at each checkpoint, and the overlap with the checkpoint before it.

    The mean over the queries is the strong line, each query a faint one.
    """
    figure = Figure(
        figsize=(FIGURE_WIDTH_PX / _DPI, FIGURE_HEIGHT_PX / _DPI),
        dpi=_DPI,
        facecolor=theme.paper,
    )
    # Fixed margins: to measure the labels takes most of the time of a picture.
    margins = {"left": 0.11, "right": 0.98, "bottom": 0.09, "top": 0.97, "hspace": 0.12}
    losses, overlaps = figure.subplots(2, 1, sharex=True, gridspec_kw=margins)
    for axes, label in ((losses, "loss per token"), (overlaps, "rank-biased overlap")):
        _style(axes, theme)
        axes.set_ylabel(label, color=theme.muted, fontsize=_TEXT_POINTS)
    shown = content.queries[:_MOST_QUERY_LINES]
    _lines(losses, [query.losses for query in shown], content.mean_losses, theme.ink, start=0)
    _lines(
        overlaps,
        [tuple(t.rank_biased_overlap if t else None for t in query.transitions) for query in shown],
        content.mean_rank_biased_overlaps,
        theme.accent,
        start=1,
    )
    overlaps.set_ylim(-0.03, 1.03)
    names = [checkpoint.name for checkpoint in content.checkpoints]
    positions = np.unique(np.linspace(0, len(names) - 1, min(len(names), _MOST_NAMES)).round().astype(int))
    # A name with dollar signs is not a formula.
    overlaps.set_xticks(positions, [_short(names[at]) for at in positions], parse_math=False)
    overlaps.set_xlim(-0.3, len(names) - 0.7)
    return figure


def _style(axes: Axes, theme: Theme) -> None:
    axes.set_facecolor(theme.paper)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.grid)
    axes.tick_params(which="both", colors=theme.muted, labelsize=_TEXT_POINTS, length=0)
    axes.grid(visible=True, color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)


def _lines(
    axes: Axes, each: list[tuple[float | None, ...]], means: list[float | None], colour: str, start: int
) -> None:
    for values in each:
        points = _points(values)
        # Of one pair of checkpoints there is one overlap, which no line shows.
        marker = "o" if len(points) == 1 else ""
        ends = np.arange(start, start + len(points))
        axes.plot(ends, points, color=colour, alpha=0.25, linewidth=0.7, marker=marker, markersize=3)
    points = _points(means)
    axes.plot(np.arange(start, start + len(points)), points, color=colour, linewidth=1.6, marker="o", markersize=3)


def _points(values: list[float | None] | tuple[float | None, ...]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARACTERS else f"…{name[1 - _NAME_CHARACTERS :]}"
