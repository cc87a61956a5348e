"""Rows of preconditioners as reports show them, by what the curvature's table says of a layer."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.attribution.stored.lake_curvature import LayerFigures
from lorif_assets.config.recipe import Recipe
from lorif_assets.lake.attribution_tables import KFAC_BASES
from lorif_assets.lake.lake import Lake
from lorif_assets.pages.report.content import LayerCurvature, LayerSpectrum, WhitenedLayer


@dataclass(frozen=True)
class ShownLayers:
    """What is shown of a checkpoint's layers, whose rows of `kfac_bases` are `bases` where the figures need them."""

    figures: LayerFigures
    bases: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, lake: Lake, checkpoint: str, recipe: Recipe) -> "ShownLayers":
        """Read what is needed besides the rows of preconditioners."""
        figures = curvature_of(recipe).layer_figures
        if figures is not LayerFigures.WHITENED:
            return cls(figures, {})
        return cls(figures, {row["layer"]: row for row in lake.read(KFAC_BASES, checkpoint=checkpoint).to_dicts()})

    def has(self, layer: str) -> bool:
        """Return whether all that is shown of a layer besides its row is stored."""
        return self.figures is not LayerFigures.WHITENED or layer in self.bases

    def shown(self, row: Mapping[str, Any]) -> LayerCurvature:
        """Return what is shown of a row of preconditioners."""
        if self.figures is LayerFigures.SPECTRUM:
            return _spectrum(row)
        if self.figures is LayerFigures.WHITENED:
            return _whitened(row, self.bases[row["layer"]])
        return LayerCurvature(**_common(row))


def _spectrum(row: Mapping[str, Any]) -> LayerSpectrum:
    common = _common(row)
    common["eigenvalues"] = common["eigenvalues"][: row["r"]]
    return LayerSpectrum(**common, r=row["r"], captured_energy=row["captured_energy"])


def _whitened(row: Mapping[str, Any], bases: Mapping[str, Any]) -> WhitenedLayer:
    kept = {name: bases[name] for name in ("rank", "bytes_per_example", "kept_energy")}
    return WhitenedLayer(**_common(row), **kept)


def _common(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "layer": row["layer"],
        "d1": row["d1"],
        "d2": row["d2"],
        "eigenvalues": tuple(row.get("eigenvalues", ())),
        "trace": row.get("trace", math.nan),
        "damping": row.get("damping", math.nan),
    }
