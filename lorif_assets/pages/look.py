"""The look that pages share: the themes of their pictures, and how pictures become PNG."""

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure

FIGURE_WIDTH_PX = 1_160
FIGURE_HEIGHT_PX = 720


@dataclass(frozen=True)
class Theme:
    """Colours of a picture.

    `shades` is the part of the viridis colour map that contrasts with the paper; `series` are colours for things without an
    order.
    """

    paper: str
    ink: str
    muted: str
    grid: str
    accent: str
    shades: tuple[float, float]
    series: tuple[str, ...]

    @property
    def depth_colours(self) -> Colormap:
        """Colour map from the first layer (0) to the last (1)."""
        return LinearSegmentedColormap.from_list("depth", colormaps["viridis"](np.linspace(*self.shades, 64)))


LIGHT = Theme(
    paper="#ffffff",
    ink="#1a1f27",
    muted="#5a6472",
    grid="#e4e7ec",
    accent="#b4500f",
    shades=(0.0, 0.86),
    series=("#0b62a8", "#00846a", "#8a4fb0", "#c23d7e", "#7a6a00", "#2fa3d6", "#4d8f1f", "#6b4f3a"),
)
DARK = Theme(
    paper="#1b1f26",
    ink="#e5e8ec",
    muted="#9ba5b3",
    grid="#2f353f",
    accent="#f0a56b",
    shades=(0.24, 1.0),
    series=("#6cb2f0", "#3fcfae", "#c39be8", "#f289b8", "#d9c84a", "#9be0ff", "#a5d96f", "#c9a88c"),
)


def png(figure: Figure) -> bytes:
    """The figure as PNG bytes; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def data_uris(draw: Callable[[Theme], Figure]) -> dict[str, str]:
    """The picture as a data URI in each colour scheme."""
    return {
        scheme: f"data:image/png;base64,{base64.b64encode(png(draw(theme))).decode()}"
        for scheme, theme in (("light", LIGHT), ("dark", DARK))
    }
