"""What the evaluation's pictures share: paper, axes, colours and the key."""

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from lorif_assets.config.methods import METHODS, MethodName
from lorif_assets.pages.look import FIGURE_HEIGHT_PX, FIGURE_WIDTH_PX, Theme

SMALL_WIDTH_PX, SMALL_HEIGHT_PX = 720, 600
TEXT_POINTS = 8.0

_DPI = 200
_MARKERS = "osD^vPX<>*"
_LABEL_CHARACTERS = 24
_MOST_TICKS = 8


def axes_of(
    theme: Theme,
    margins: tuple[float, float, float, float],
    size: tuple[int, int] = (FIGURE_WIDTH_PX, FIGURE_HEIGHT_PX),
) -> tuple[Figure, Axes]:
    """Return a figure of a size in pixels with one pair of axes: left, bottom, width and height as shares of it."""
    figure = Figure(figsize=(size[0] / _DPI, size[1] / _DPI), dpi=_DPI, facecolor=theme.paper)
    # Fixed margins: measuring the labels takes most of the time of a picture.
    axes = figure.add_axes(margins, facecolor=theme.paper)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.grid)
    axes.tick_params(which="both", colors=theme.muted, labelsize=TEXT_POINTS, length=0)
    axes.grid(visible=True, color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def label_axes(axes: Axes, theme: Theme, x: str, y: str) -> None:
    """Name both axes."""
    axes.set_xlabel(x, color=theme.muted, fontsize=TEXT_POINTS)
    axes.set_ylabel(y, color=theme.muted, fontsize=TEXT_POINTS)


def method_colours(methods: Sequence[str], theme: Theme) -> Mapping[str, str]:
    """Return the colour of each method: one of its own for LoRIF, none for chance, and the same on every picture."""
    named = list(METHODS)
    ordered = [*named, *sorted(set(methods) - set(named))]
    plain = [name for name in ordered if name not in (MethodName.LORIF, MethodName.RANDOM)]
    colours = {name: theme.series[at % len(theme.series)] for at, name in enumerate(plain)}
    return {**colours, str(MethodName.LORIF): theme.accent, str(MethodName.RANDOM): theme.muted}


def marker(position: int) -> str:
    """Return the mark of the series at a position."""
    return _MARKERS[position % len(_MARKERS)]


def key_beside(axes: Axes, theme: Theme) -> None:
    """List the labelled series to the right of the axes."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return
    key = axes.legend(
        handles,
        [fill(label, _LABEL_CHARACTERS) for label in labels],
        loc="upper left",
        bbox_to_anchor=(1.02, 1.02),
        borderaxespad=0,
        frameon=False,
        fontsize=TEXT_POINTS - 1,
        labelcolor=theme.ink,
        handlelength=1.6,
    )
    for text in key.get_texts():
        # A name with dollar signs is not a formula.
        text.set_parse_math(False)


def short(label: str) -> str:
    """Return a label that fits beside a picture."""
    return label if len(label) <= _LABEL_CHARACTERS else f"{label[: _LABEL_CHARACTERS - 1]}…"


def logarithmic(axes: Axes, values: Sequence[float], margin: float = 1.5) -> None:
    """Make the x axis logarithmic from the smallest to the largest value, with ticks at the values if these are few."""
    axes.set_xscale("log")
    distinct = sorted({value for value in values if value > 0})
    if 2 < len(distinct) <= _MOST_TICKS and _far_apart(distinct):
        axes.xaxis.set_major_locator(FixedLocator(distinct))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _plain(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = min(distinct, default=1), max(distinct, default=1)
    axes.set_xlim(low / margin, high * margin)


def dodged(values: Sequence[float], step: float = 1.07) -> Float64[np.ndarray, " N"]:
    """Return the values, equal ones moved a little apart on a logarithmic axis, so that none hides another."""
    moved = []
    for at, value in enumerate(values):
        alike = [other for other, found in enumerate(values) if found == value]
        moved.append(value * step ** (alike.index(at) - (len(alike) - 1) / 2))
    return np.array(moved)


def _far_apart(values: Sequence[float]) -> bool:
    """Whether no two neighbours are so close that their labels would overlap."""
    if len(values) < 2:
        return True
    logs = np.log(values)
    return bool(np.diff(logs).min() > 0.07 * (logs[-1] - logs[0] + 0.8))


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"
