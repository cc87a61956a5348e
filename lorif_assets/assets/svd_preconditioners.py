"""SVD preconditioners: each layer's curvature over all training examples, as leading eigenpairs and a mean tail."""

from collections.abc import Mapping
from typing import Any

from lorif_assets.assets.preconditioners import LayerReport, ReportLayer, preconditioner_asset
from lorif_assets.attribution.fit_curvature import CurvatureFit
from lorif_assets.lake.attribution_tables import SVD_PRECONDITIONERS
from lorif_assets.lake.lake import Lake
from lorif_assets.pages.report.assembly import layer_spectrum


def _layer_reporter(lake: Lake, checkpoint: str) -> ReportLayer:
    del lake, checkpoint
    return _report


def _report(fit: CurvatureFit, row: Mapping[str, Any]) -> LayerReport:
    spectrum = layer_spectrum(row)
    return LayerReport(
        spectrum,
        {"captured_energy": spectrum.captured_energy, "trace": spectrum.trace, "damping": spectrum.damping},
        {"examples_read": fit.rows_read, "r": spectrum.r, **_drift(row)},
    )


def _drift(row: Mapping[str, Any]) -> dict[str, float | bool]:
    share = {"added_energy_share": row["added_energy_captured"] / row["added_energy"]} if row["added_energy"] else {}
    return {"fitted_energy": row["fitted_energy"], **share, "needs_refine": row["needs_refine"]}


svd_preconditioners = preconditioner_asset(
    SVD_PRECONDITIONERS,
    """A layer's curvature H = sum of g g^T over the factorised gradients: leading eigenpairs, trace and damping.

    With a curvature that is stored elsewhere there is nothing to do.
    """,
    layer_reporter=_layer_reporter,
    is_refinable=True,
)
