"""Pictures of the curvature are PNGs of the declared size, whatever the spectra hold."""

import math
import struct

import pytest

from lorif_assets.pages import look
from lorif_assets.pages.report.content import LayerSpectrum
from lorif_assets.pages.report.plots import shares_figure, spectrum_png
from tests.pages.report.conftest import layer


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize(
    "layers",
    [
        [],
        [layer(0)],
        [layer(number) for number in range(200)],
        [layer(0, eigenvalues=(0.0, 0.0), trace=0.0)],
        [layer(0, eigenvalues=(math.nan, 1.0), trace=math.inf, captured_energy=math.nan)],
        [layer(0, layer="$\\bad{math$", eigenvalues=(1.0,))],
    ],
    ids=["no layers", "one", "two hundred", "no curvature", "not finite", "a name like mathematics"],
)
def test_a_picture_is_a_png_of_the_declared_size(layers: list[LayerSpectrum]) -> None:
    expected = (look.FIGURE_WIDTH_PX, look.FIGURE_HEIGHT_PX)
    assert size(spectrum_png(layers)) == expected
    assert size(look.png(shares_figure([one.captured_energy for one in layers], "share kept", look.DARK))) == expected


def test_the_same_layers_give_the_same_bytes() -> None:
    assert spectrum_png([layer(0)]) == spectrum_png([layer(0)])
