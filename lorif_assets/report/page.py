"""The attribution report as one self-contained HTML page."""

import base64
from collections.abc import Callable
from functools import partial
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from lorif_assets.report import number_format, passages, plots
from lorif_assets.report.content import LayerSpectrum, ReportContent, WhitenedLayer
from lorif_assets.report.plots import Theme

_TEMPLATE = "report.html.jinja"


def render(content: ReportContent) -> str:
    """The page: no scripts, no network, no other files; the same content gives the same page."""
    environment = page_environment("lorif_assets.report")
    return environment.get_template(_TEMPLATE).render(
        report=content,
        whitened=[layer for layer in content.layers if isinstance(layer, WhitenedLayer)],
        spectra=[layer for layer in content.layers if isinstance(layer, LayerSpectrum)],
        pictures=_pictures(content),
    )


def page_environment(*packages: str) -> Environment:
    """What pages are made with: templates of these packages, escaping, and the filters for numbers and passages."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, package_path="") for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {
        "count": number_format.count,
        "significant": number_format.significant,
        "score": number_format.score,
        "percent": number_format.percent,
        "bar_width": number_format.bar_width,
        "labels": passages.labels,
        "clip_end": passages.clip_end,
        "clip_start": passages.clip_start,
        "first_line": passages.first_line,
        "last_line": passages.last_line,
    }
    return environment


def _visible(value: Any) -> Any:
    """Applied to every printed expression; markup made by the template's own macros passes as it is."""
    return passages.visible(value) if type(value) is str else value


def _pictures(content: ReportContent) -> dict[str, dict[str, str]]:
    """Data URIs by picture and colour scheme; no picture of energies where a layer's is not stored."""
    figures: dict[str, Callable[[Theme], Figure]] = {"spectra": partial(plots.spectra_figure, content.layers)}
    captured = [layer.captured_energy for layer in content.layers if isinstance(layer, LayerSpectrum)]
    kept = [layer.kept_energy for layer in content.layers if isinstance(layer, WhitenedLayer)]
    known = [energy for energy in kept if energy is not None]
    if captured:
        figures["energy"] = partial(plots.shares_figure, captured, "share of the trace kept")
    elif known and len(known) == len(kept):
        figures["energy"] = partial(plots.shares_figure, known, "share of the squared norm kept")
    return {
        name: {
            scheme: f"data:image/png;base64,{base64.b64encode(plots.png(draw(theme))).decode()}"
            for scheme, theme in (("light", plots.LIGHT), ("dark", plots.DARK))
        }
        for name, draw in figures.items()
    }
