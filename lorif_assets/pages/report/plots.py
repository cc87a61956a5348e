"""Pictures of the curvature: the spectra of all layers, and the share of the trace that each layer keeps."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lorif_assets.pages.look import FIGURE_HEIGHT_PX, FIGURE_WIDTH_PX, LIGHT, Theme, png
from lorif_assets.pages.report.content import LayerCurvature

_DPI = 200
_TEXT_POINTS = 8.0


def spectrum_png(layers: Sequence[LayerCurvature]) -> bytes:
    """The spectra as a PNG of FIGURE_WIDTH_PX x FIGURE_HEIGHT_PX pixels on white paper."""
    return png(spectra_figure(layers, LIGHT))


def spectra_figure(layers: Sequence[LayerCurvature], theme: Theme) -> Figure:
    """Eigenvalues over the layer's trace against their index, one line per layer, the damping dashed.

    Eigenvalues that are not positive and finite have no place on the logarithmic axes and are left out, and so are
    layers whose trace is not.
    """
    figure, axes = _figure(theme)
    drawable = [(position, layer) for position, layer in enumerate(layers, start=1) if 0 < layer.trace < math.inf]
    depth = Normalize(1, max(len(layers), 2))
    drawn = 0
    for position, layer in drawable:
        eigenvalues = np.asarray(layer.eigenvalues, dtype=np.float64)
        kept = np.isfinite(eigenvalues) & (eigenvalues > 0)
        index = np.flatnonzero(kept) + 1
        colour = theme.depth_colours(depth(position))
        axes.plot(
            index,
            eigenvalues[kept] / layer.trace,
            color=colour,
            linewidth=_line_width(len(layers)),
            alpha=0.9,
            marker="o" if index.size == 1 else None,
            markersize=3,
        )
        drawn += bool(index.size)
    if not drawn:
        return _blank(theme, "No positive eigenvalues to draw")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _mark_damping(axes, [layer.damping / layer.trace for _, layer in drawable], theme)
    axes.set_xlabel("index of the eigenvalue", color=theme.muted)
    axes.set_ylabel("eigenvalue / trace", color=theme.muted)
    if len(layers) == 1:
        axes.set_title(layers[0].layer, color=theme.ink, fontsize=_TEXT_POINTS, loc="left", parse_math=False)
    else:
        _depth_scale(figure, axes, len(layers), depth, theme)
    return figure


def shares_figure(shares: Sequence[float], label: str, theme: Theme) -> Figure:
    """A share (0 to 1) of each layer as a bar, in the layers' order; a cross where it is not finite."""
    if not shares:
        return _blank(theme, "No layers to draw")
    figure, axes = _figure(theme)
    energy = np.array(shares, dtype=np.float64)
    position = np.arange(1, len(shares) + 1)
    finite = np.isfinite(energy)
    colours = theme.depth_colours(Normalize(1, max(len(shares), 2))(position))
    axes.bar(position[finite], energy[finite], width=0.78, color=colours[finite])
    axes.plot(position[~finite], np.full((~finite).sum(), 0.02), "x", color=theme.accent, markersize=4)
    axes.set_xlim(0.4, len(shares) + 0.6)
    axes.set_ylim(0, max([1.0, *energy[finite]]))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(visible=False, axis="x")
    axes.set_xlabel("layer, in the model's order", color=theme.muted)
    axes.set_ylabel(label, color=theme.muted)
    return figure


def _figure(theme: Theme) -> tuple[Figure, Axes]:
    figure = Figure(
        figsize=(FIGURE_WIDTH_PX / _DPI, FIGURE_HEIGHT_PX / _DPI),
        dpi=_DPI,
        facecolor=theme.paper,
    )
    # Fixed margins: measuring the labels (constrained layout) takes most of the time of a picture.
    axes = figure.add_axes((0.11, 0.13, 0.86, 0.79), facecolor=theme.paper)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.grid)
    axes.tick_params(which="both", colors=theme.muted, labelsize=_TEXT_POINTS, length=0)
    axes.xaxis.label.set_fontsize(_TEXT_POINTS)
    axes.yaxis.label.set_fontsize(_TEXT_POINTS)
    axes.grid(visible=True, color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure, axes


def _blank(theme: Theme, words: str) -> Figure:
    figure, axes = _figure(theme)
    axes.set_axis_off()
    axes.text(0.5, 0.5, words, color=theme.muted, fontsize=_TEXT_POINTS, ha="center", transform=axes.transAxes)
    return figure


def _line_width(n_layers: int) -> float:
    return 1.2 if n_layers <= 24 else 0.8 if n_layers <= 96 else 0.5


def _mark_damping(axes: Axes, levels: Sequence[float], theme: Theme) -> None:
    """A dashed line at the damping, or a band where layers of different widths have different ones."""
    drawable = [level for level in levels if 0 < level < math.inf]
    if not drawable:
        return
    low, high = min(drawable), max(drawable)
    axes.axhspan(low, high, color=theme.accent, alpha=0.1, linewidth=0)
    for level in {low, high}:
        axes.axhline(level, color=theme.accent, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.annotate(
        "damping",
        (0, low),
        xycoords=("axes fraction", "data"),
        xytext=(4, -3),
        textcoords="offset points",
        color=theme.accent,
        fontsize=_TEXT_POINTS,
        va="top",
    )


def _depth_scale(figure: Figure, axes: Axes, n_layers: int, depth: Normalize, theme: Theme) -> None:
    scale = figure.colorbar(
        ScalarMappable(depth, theme.depth_colours),
        ax=axes,
        fraction=0.08,
        aspect=36,
        pad=0.02,
        ticks=np.unique(np.linspace(1, n_layers, 5).round().astype(int)).tolist(),
    )
    scale.outline.set_visible(False)
    scale.ax.invert_yaxis()
    scale.ax.tick_params(colors=theme.muted, labelsize=_TEXT_POINTS, length=0)
    scale.set_label("layer", color=theme.muted, fontsize=_TEXT_POINTS)
