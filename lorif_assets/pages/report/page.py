"""The attribution report as one self-contained HTML page."""

import re
from collections.abc import Callable
from functools import partial

from matplotlib.figure import Figure

from lorif_assets.attribution.scores.stored_rankings import WHEN_WHICH
from lorif_assets.pages.environment import page_environment
from lorif_assets.pages.look import Theme, data_uris
from lorif_assets.pages.report import plots
from lorif_assets.pages.report.content import LayerSpectrum, ReportContent, WhitenedLayer
from lorif_assets.pages.token_colours import n_left_out, token_runs

EXPLORED_QUERY = re.compile(r"<!--explore (\S+)-->")
"""Where a report leaves room, in each query, for a link into the explorer: the query's id, percent-encoded."""
_TEMPLATE = "report.html.jinja"


def render(content: ReportContent) -> str:
    """The page: no scripts, no network, no other files; the same content gives the same page."""
    environment = page_environment("lorif_assets.pages.report")
    return environment.get_template(_TEMPLATE).render(
        report=content,
        when_which=WHEN_WHICH,
        whitened=[layer for layer in content.layers if isinstance(layer, WhitenedLayer)],
        spectra=[layer for layer in content.layers if isinstance(layer, LayerSpectrum)],
        pictures=_pictures(content),
        runs=token_runs,
        n_left_out=n_left_out,
    )


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
    return {name: data_uris(draw) for name, draw in figures.items()}
