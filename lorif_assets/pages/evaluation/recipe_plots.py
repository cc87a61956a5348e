"""Pictures of recipes that were tried: their quality against bytes per example, r and damping."""

from collections.abc import Sequence
from typing import Literal

from matplotlib.figure import Figure

from lorif_assets.pages.axes import axes_of, key_beside, label_axes, logarithmic, marker
from lorif_assets.pages.evaluation.content import RecipeTrial
from lorif_assets.pages.look import Theme

Quality = Literal["lds", "agreement"]

_LABELS = {"lds": "LDS", "agreement": "agreement with the dense inverse"}
_WITH_KEY = (0.11, 0.13, 0.58, 0.83)
_MOST_LINES = 6
# Families of the same size are drawn side by side.
_FAMILY_STEP = 1.06


def quality(trial: RecipeTrial, kind: Quality) -> float | None:
    """Return one kind of quality of a trial, or None if it was not measured."""
    if kind == "lds":
        return trial.lds.value if trial.lds else None
    return trial.agreement


def recipe_trade_off_figure(trials: Sequence[RecipeTrial], kind: Quality, theme: Theme) -> Figure:
    """Quality against bytes per example, a colour per curvature and number format; the best for the bytes joined."""
    figure, axes = axes_of(theme, _WITH_KEY)
    known = [(trial, value) for trial in trials if (value := quality(trial, kind)) is not None]
    for at, family in enumerate(sorted({trial.family for trial, _ in known})):
        chosen = [(trial, value) for trial, value in known if trial.family == family]
        colour = theme.series[at % len(theme.series)]
        axes.plot(
            [trial.bytes_per_example * _FAMILY_STEP**at for trial, _ in chosen],
            [value for _, value in chosen],
            marker(at),
            color=colour,
            alpha=0.85,
            markersize=4.5,
            markeredgewidth=0,
            label=family,
        )
    front = _front([(trial.bytes_per_example, value) for trial, value in known])
    if len(front) > 1:
        sizes, values = zip(*front, strict=True)
        axes.step(sizes, values, where="post", color=theme.muted, linewidth=0.9, label="best for its bytes")
    logarithmic(axes, [trial.bytes_per_example for trial, _ in known])
    label_axes(axes, theme, "bytes per example", _LABELS[kind])
    key_beside(axes, theme)
    return figure


def field_figure(trials: Sequence[RecipeTrial], field: Literal["r", "damping"], kind: Quality, theme: Theme) -> Figure:
    """Quality against r or damping; a line joins trials that have everything else in common."""
    figure, axes = axes_of(theme, _WITH_KEY)
    lines: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for trial in trials:
        value, place = quality(trial, kind), getattr(trial, field)
        # EK-FAC has no r.
        if value is not None and place is not None and place > 0:
            lines.setdefault(_line_key(trial, field), []).append((place, value))
    shown = sorted(lines, key=lambda others: _weight(lines[others]), reverse=True)[:_MOST_LINES]
    for at, (others, name) in enumerate(zip(shown, _line_names(shown), strict=True)):
        places, values = zip(*sorted(lines[others]), strict=True)
        axes.plot(
            places,
            values,
            color=theme.series[at % len(theme.series)],
            linewidth=1.3,
            marker=marker(at),
            markersize=4,
            label=name,
        )
    logarithmic(axes, [place for points in lines.values() for place, _ in points])
    label_axes(axes, theme, field, _LABELS[kind])
    key_beside(axes, theme)
    return figure


def _weight(points: Sequence[tuple[float, float]]) -> tuple[int, float]:
    """Return how much a line says: how many values it compares, then how good it gets. All lines would be a tangle."""
    return len({place for place, _ in points}), max(value for _, value in points)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other point beats in quality with at most the same bytes."""
    front: list[tuple[float, float]] = []
    for size, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((size, value))
    return front


def _line_key(trial: RecipeTrial, field: str) -> tuple[str, ...]:
    """Return the words for all fields but one, which identify a line."""
    words_by_field = {
        "curvature": trial.curvature,
        "projection": str(trial.projection),
        "rank": f"c = {trial.rank}" if trial.rank else f"{trial.bytes_per_example:,.0f} bytes",
        "r": "no r" if trial.r is None else f"r = {trial.r}",
        "damping": f"damping = {trial.damping:.3g}",
        "curvature_form": trial.curvature_form.replace("_", " "),
        "factor_dtype": trial.factor_dtype,
    }
    return tuple(words for name, words in words_by_field.items() if name != field)


def _line_names(lines: Sequence[tuple[str, ...]]) -> Sequence[str]:
    """Return a name for each line, of only the words in which the lines differ."""
    differing = [at for at, words in enumerate(zip(*lines, strict=True)) if len(set(words)) > 1]
    return [", ".join(line[at] for at in differing) for line in lines]
