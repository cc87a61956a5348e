"""SVD preconditioners: each layer's curvature over all training examples, as leading eigenpairs and a mean tail."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.preconditioners import FitLayer, FittedLayer, preconditioner_asset
from lorif_assets.attribution.fit_svd import renew_layer
from lorif_assets.attribution.model import CheckpointRecord
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.config.recipe import content_hash
from lorif_assets.lake.attribution_tables import SVD_PRECONDITIONERS
from lorif_assets.pages.report.assembly import layer_spectrum

if TYPE_CHECKING:
    import torch


class CurvatureConfig(dg.Config):
    """Options of one run of `svd_preconditioners`."""

    refine: bool = False
    """Fit each layer's basis to the data of now, in one more pass over all factors; scores then renew."""


def _fitting(run: PartitionRun, record: CheckpointRecord, stored: StoredFactors, config: CurvatureConfig) -> FitLayer:
    settings = run.settings

    def fit_layer(layer: str, device: "torch.device") -> FittedLayer:
        fit, row = renew_layer(
            run.lake,
            record,
            stored,
            layer,
            settings.recipe,
            rows=settings.batch.scan_rows,
            device=device,
            refine_below=settings.curvature.refine_below,
            refine=config.refine,
        )
        spectrum = layer_spectrum(row)
        return FittedLayer(
            _data_version(row),
            spectrum,
            {"captured_energy": spectrum.captured_energy, "trace": spectrum.trace, "damping": spectrum.damping},
            {
                "how": fit.how,
                "examples": stored.n_examples,
                "examples_read": fit.rows_read,
                "shards": len(stored.files),
                "d1": spectrum.d1,
                "d2": spectrum.d2,
                "r": spectrum.r,
                **_drift(row),
            },
        )

    return fit_layer


def _data_version(row: Mapping[str, Any]) -> str:
    """Return the row's version; a refined basis, which changes scores, is another one."""
    version, basis = str(row["version"]), row["basis_version"]
    return content_hash([version, basis]) if basis else version


def _drift(row: Mapping[str, Any]) -> dict[str, float | bool]:
    share = {"added_energy_share": row["added_energy_captured"] / row["added_energy"]} if row["added_energy"] else {}
    return {"fitted_energy": row["fitted_energy"], **share, "needs_refine": row["needs_refine"]}


svd_preconditioners = preconditioner_asset(
    "svd_preconditioners",
    """A layer's curvature H = sum of g g^T over the factorised gradients: leading eigenpairs, trace and damping.

    With the curvature `ekfac` there is nothing to do.
    """,
    curvature="svd",
    table=SVD_PRECONDITIONERS,
    fitting=_fitting,
    options=CurvatureConfig,
)
