"""Pictures of the methods: their figures by query, predicted against actual, ROC curves, and removal."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from lorif_assets.config.methods import method_title
from lorif_assets.mathematics.evaluation.roc import FALSE_POSITIVE_RATES
from lorif_assets.pages.axes import (
    SMALL_HEIGHT_PX,
    SMALL_WIDTH_PX,
    TEXT_POINTS,
    axes_of,
    dodged,
    key_beside,
    label_axes,
    logarithmic,
    marker,
    method_colours,
    short,
)
from lorif_assets.pages.evaluation.content import Cost, Interval, Measured, QueryScatter, Removal, Retrieval
from lorif_assets.pages.look import Theme

_WITH_NAMES = (0.27, 0.13, 0.70, 0.84)
_WITH_KEY = (0.11, 0.13, 0.58, 0.83)


def distribution_figure(measured: Measured, label: str, theme: Theme) -> Figure:
    """Each query of each method as a faint dot, the mean with its interval as a strong one; the best method on top."""
    figure, axes = axes_of(theme, _WITH_NAMES)
    colours, rng = method_colours(measured.methods, theme), np.random.default_rng(0)
    for row, method in enumerate(reversed(measured.methods)):
        values, colour = measured.per_query.get(method, ()), colours[method]
        spread = row + rng.uniform(-0.26, 0.26, len(values))
        axes.plot(values, spread, ".", color=colour, alpha=0.5, markersize=4.5, markeredgewidth=0)
        mean = measured.means[method]
        if mean.low is not None and mean.high is not None:
            axes.plot([mean.low, mean.high], [row, row], color=theme.ink, linewidth=1.2)
        axes.plot(
            [mean.value], [row], "D", color=colour, markersize=4.5, markeredgecolor=theme.ink, markeredgewidth=0.7
        )
    axes.axvline(0, color=theme.muted, linewidth=0.8)
    names = [short(method_title(method)) for method in reversed(measured.methods)]
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.tick_params(axis="y", colors=theme.ink)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(visible=False, axis="y")
    label_axes(axes, theme, label, "")
    return figure


def scatter_figure(scatter: QueryScatter, theme: Theme) -> Figure:
    """A point per subset: what the scores predict, and what retraining did."""
    figure, axes = axes_of(theme, (0.19, 0.17, 0.78, 0.79), (SMALL_WIDTH_PX, SMALL_HEIGHT_PX))
    colour = method_colours([scatter.method], theme)[scatter.method]
    axes.axhline(0, color=theme.grid, linewidth=1)
    axes.axvline(0, color=theme.grid, linewidth=1)
    axes.plot(scatter.predicted, scatter.actual, "o", color=colour, alpha=0.75, markersize=4, markeredgewidth=0)
    axes.ticklabel_format(axis="x", scilimits=(-3, 4), useMathText=False)
    axes.xaxis.get_offset_text().set(color=theme.muted, fontsize=TEXT_POINTS - 1)
    axes.locator_params(nbins=5)
    label_axes(axes, theme, "predicted: sum of scores", "actual: loss lower by (nats)")
    return figure


def method_trade_off_figure(means: Mapping[str, Interval], costs: Mapping[str, Cost], theme: Theme) -> Figure:
    """Quality with its interval against the bytes kept per example; methods that keep none are lines across."""
    figure, axes = axes_of(theme, _WITH_KEY)
    chosen = sorted((method for method in means if method in costs), key=lambda method: costs[method].bytes_per_example)
    colours = method_colours(chosen, theme)
    kept = [method for method in chosen if costs[method].bytes_per_example > 0]
    places = dodged([costs[method].bytes_per_example for method in kept])
    for at, (method, place) in enumerate(zip(kept, places, strict=True)):
        mean = means[method]
        if mean.low is not None and mean.high is not None:
            axes.plot([place, place], [mean.low, mean.high], color=colours[method], linewidth=1, alpha=0.6)
        axes.plot([place], [mean.value], marker(at), color=colours[method], markersize=5, label=method_title(method))
    for method in chosen:
        if method not in kept:
            axes.axhline(
                means[method].value,
                color=colours[method],
                linewidth=1,
                linestyle=(0, (4, 3)),
                label=f"{method_title(method)} (0 bytes)",
            )
    logarithmic(axes, [costs[method].bytes_per_example for method in kept])
    label_axes(axes, theme, "bytes per example", "LDS")
    key_beside(axes, theme)
    return figure


def roc_figure(retrieval: Retrieval, theme: Theme) -> Figure:
    """The mean ROC curve of every method."""
    figure, axes = axes_of(theme, _WITH_KEY)
    ordered = [method for method in retrieval.methods if method in retrieval.curves]
    colours = method_colours(ordered, theme)
    axes.plot(FALSE_POSITIVE_RATES, FALSE_POSITIVE_RATES, color=theme.muted, linewidth=0.8, linestyle=(0, (2, 3)))
    for at, method in enumerate(ordered):
        axes.plot(
            FALSE_POSITIVE_RATES,
            retrieval.curves[method],
            color=colours[method],
            linewidth=1.3,
            marker=marker(at),
            markersize=3,
            markevery=(3 * at, 25),
            label=method_title(method),
        )
    logarithmic(axes, [1 / max(retrieval.n_examples, 10), 1.0], margin=1.0)
    axes.set_ylim(-0.02, 1.02)
    label_axes(axes, theme, "share of other examples met", "share of sources found")
    key_beside(axes, theme)
    return figure


def removal_figure(removals: Sequence[Removal], theme: Theme) -> Figure:
    """The rise of the loss against the number of removed examples, a line per method, with all seeds as a band."""
    figure, axes = axes_of(theme, (0.13, 0.13, 0.56, 0.83))
    last = {removal.method: removal.mean for removal in removals}
    ordered = sorted(last, key=lambda method: -last[method])
    colours = method_colours(ordered, theme)
    axes.axhline(0, color=theme.muted, linewidth=0.8)
    for at, method in enumerate(ordered):
        chosen = sorted((one for one in removals if one.method == method), key=lambda one: one.n_removed)
        counts, colour = [one.n_removed for one in chosen], colours[method]
        lows, highs = [min(one.rises) for one in chosen], [max(one.rises) for one in chosen]
        axes.fill_between(counts, lows, highs, color=colour, alpha=0.14, linewidth=0)
        axes.vlines(counts, lows, highs, color=colour, linewidth=0.8, alpha=0.5)
        axes.plot(
            counts,
            [one.mean for one in chosen],
            color=colour,
            linewidth=1.4,
            marker=marker(at),
            markersize=4,
            label=method_title(method),
        )
    logarithmic(axes, [removal.n_removed for removal in removals])
    label_axes(axes, theme, "removed examples", "rise of the loss per token (nats)")
    key_beside(axes, theme)
    return figure
