"""An evaluation as one self-contained HTML page, in the look of the attribution report."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

from matplotlib.figure import Figure

from lorif_assets.config.methods import method_explanation, method_title
from lorif_assets.pages import number_format
from lorif_assets.pages.axes import SMALL_HEIGHT_PX, SMALL_WIDTH_PX
from lorif_assets.pages.environment import page_environment
from lorif_assets.pages.evaluation import method_plots, recipe_plots
from lorif_assets.pages.evaluation.content import EvaluationContent, Interval, Measured, Removal
from lorif_assets.pages.look import Theme, data_uris

_TEMPLATE = "evaluation.html.jinja"
_NONE = "\N{EN DASH}"
_DECIMALS, _MOST_DECIMALS = 2, 6
_METRIC_TITLES = {
    "recall_at_10": "Recall at 10",
    "mrr": "Reciprocal rank",
    "roc_auc": "Area under ROC",
    "auprc": "Area under precision and recall",
    "query_loss_difference": "Rise of a query's loss",
    "query_loss_difference_per_token": "The same per token",
    "sorted_lds": "LDS on sorted subsets",
}
_FIELDS: tuple[Literal["r", "damping"], ...] = ("r", "damping")


def render(content: EvaluationContent) -> str:
    """The page: no scripts, no network, no other files; the same content gives the same page."""
    environment = page_environment(
        "lorif_assets.pages.evaluation",
        method_title=method_title,
        method_explanation=method_explanation,
        figure=_figure,
        signed=_signed,
        interval=_interval,
        seconds=_seconds,
    )
    return environment.get_template(_TEMPLATE).render(
        content=content,
        pictures={name: data_uris(draw) for name, draw in _pictures(content)},
        metric_titles=_METRIC_TITLES,
        measured_by_lds=any(trial.lds for trial in content.trials),
        removed=sorted({removal.n_removed for removal in content.removals}),
        rises=_by_method(content.removals),
        tail_digits=_digits(content.tail_patch),
        small={"width": SMALL_WIDTH_PX // 2, "height": SMALL_HEIGHT_PX // 2},
    )


def _pictures(content: EvaluationContent) -> Iterator[tuple[str, Callable[[Theme], Figure]]]:
    """Yield the name of each picture for which there are data, and what draws it."""
    if content.lds:
        yield "lds", partial(method_plots.distribution_figure, content.lds, "LDS")
        if content.costs:
            yield "trade_off", partial(method_plots.method_trade_off_figure, content.lds.means, content.costs)
    for number, scatter in enumerate(content.scatters):
        yield f"scatter_{number}", partial(method_plots.scatter_figure, scatter)
    if content.trials:
        kind: recipe_plots.Quality = "lds" if any(trial.lds for trial in content.trials) else "agreement"
        yield "recipes", partial(recipe_plots.recipe_trade_off_figure, content.trials, kind)
        for field in _FIELDS:
            if len({getattr(trial, field) for trial in content.trials}) > 1:
                yield field, partial(recipe_plots.field_figure, content.trials, field, kind)
    if content.tail_patch:
        label = "change of the log-probability per token"
        yield "tail_patch", partial(method_plots.distribution_figure, content.tail_patch, label)
    if content.retrieval and content.retrieval.curves:
        yield "roc", partial(method_plots.roc_figure, content.retrieval)
    if content.removals:
        yield "removal", partial(method_plots.removal_figure, content.removals)


def _figure(value: float | None, digits: int = _DECIMALS, sign: str = "-") -> str:
    """Return a figure with a number of decimals, and more where it would otherwise show as zero."""
    if value is None:
        return _NONE
    text = f"{value:{sign}.{digits}f}"
    while value and digits < _MOST_DECIMALS and not float(text):
        digits += 1
        text = f"{value:{sign}.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _signed(value: float, digits: int = _DECIMALS) -> str:
    return _figure(value, digits, sign="+")


def _interval(interval: Interval, digits: int = _DECIMALS) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"[{_figure(interval.low, digits)}, {_figure(interval.high, digits)}]"


def _seconds(value: float | None) -> str:
    if not value:
        return _NONE if value is None else "0"
    return "below 0.01" if value < 0.01 else number_format.significant(value, 2)


def _by_method(removals: Sequence[Removal]) -> Mapping[str, Mapping[int, Removal]]:
    """Return the removals by method, that with the largest rise first, and by number of removed examples."""
    found: dict[str, dict[int, Removal]] = {}
    for removal in sorted(removals, key=lambda removal: -removal.mean):
        found.setdefault(removal.method, {})[removal.n_removed] = removal
    return found


def _digits(measured: Measured | None) -> int:
    """Return the decimals that give the largest mean two significant digits, and no fewer than two."""
    largest = max((abs(mean.value) for mean in measured.means.values()), default=0) if measured else 0
    return min(max(_DECIMALS, 1 - math.floor(math.log10(largest))), _MOST_DECIMALS) if largest > 0 else _DECIMALS
