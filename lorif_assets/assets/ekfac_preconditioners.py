"""EK-FAC preconditioners: each layer's eigenvalues in the K-FAC bases, over all training examples."""

from collections.abc import Mapping
from typing import Any

from lorif_assets.assets.attribution_asset import Input, Wait
from lorif_assets.assets.kfac_bases import kfac_bases
from lorif_assets.assets.preconditioners import LayerReport, ReportLayer, preconditioner_asset
from lorif_assets.attribution.fit_curvature import CurvatureFit
from lorif_assets.lake.attribution_tables import EKFAC_PRECONDITIONERS, KFAC_BASES
from lorif_assets.lake.lake import Lake
from lorif_assets.pages.report.assembly import whitened_layer


def _layer_reporter(lake: Lake, checkpoint: str) -> ReportLayer:
    bases = {row["layer"]: row for row in lake.read(KFAC_BASES, checkpoint=checkpoint).to_dicts()}

    def report(fit: CurvatureFit, row: Mapping[str, Any]) -> LayerReport:
        whitened = whitened_layer(row, bases[row["layer"]])
        return LayerReport(
            whitened,
            {"mean_eigenvalue": whitened.mean_eigenvalue, "trace": whitened.trace, "damping": whitened.damping},
            {"shards_read": fit.shards_read},
        )

    return report


ekfac_preconditioners = preconditioner_asset(
    EKFAC_PRECONDITIONERS,
    """A layer's EK-FAC eigenvalues: the mean square of rotated gradients, summed shard by shard.

    Shards that changed are subtracted and added; no factor is read. With a curvature that is stored elsewhere there is
    nothing to do.
    """,
    layer_reporter=_layer_reporter,
    inputs=[Input(kfac_bases, wait=Wait.FOR_IT_ALONE)],
)
