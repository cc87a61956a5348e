"""EK-FAC preconditioners: each layer's eigenvalues in the K-FAC bases, over all training examples."""

from typing import TYPE_CHECKING

from lorif_assets.assets.attribution_asset import Input, Wait
from lorif_assets.assets.kfac_bases import kfac_bases
from lorif_assets.assets.partition_run import PartitionRun
from lorif_assets.assets.preconditioners import FitLayer, FittedLayer, preconditioner_asset
from lorif_assets.attribution.fit_ekfac import renew_fisher
from lorif_assets.attribution.model import CheckpointRecord
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.attribution.versions import preconditioner_version
from lorif_assets.lake.attribution_tables import EKFAC_PRECONDITIONERS, KFAC_BASES
from lorif_assets.pages.report.assembly import whitened_layer

if TYPE_CHECKING:
    import torch


def _fitting(run: PartitionRun, record: CheckpointRecord, stored: StoredFactors) -> FitLayer:
    recipe = run.settings.recipe
    bases = {row["layer"]: row for row in run.lake.read(KFAC_BASES, checkpoint=record.name).to_dicts()}
    version = preconditioner_version(recipe, record, stored.shard_hashes)

    def fit_layer(layer: str, device: "torch.device") -> FittedLayer:
        fit, row = renew_fisher(run.lake, record, stored, layer, recipe, device)
        whitened = whitened_layer(row, bases[layer])
        return FittedLayer(
            version,
            whitened,
            {"mean_eigenvalue": whitened.mean_eigenvalue, "trace": whitened.trace, "damping": whitened.damping},
            {
                "how": fit.how,
                "examples": fit.fisher.count,
                "shards": len(stored.files),
                "shards_read": fit.shards_read,
                "d1": whitened.d1,
                "d2": whitened.d2,
            },
        )

    return fit_layer


ekfac_preconditioners = preconditioner_asset(
    "ekfac_preconditioners",
    """A layer's EK-FAC eigenvalues: the mean square of rotated gradients, summed shard by shard.

    Shards that changed are subtracted and added; no factor is read. With the curvature `svd` there is nothing to do.
    """,
    curvature="ekfac",
    table=EKFAC_PRECONDITIONERS,
    fitting=_fitting,
    inputs=[Input(kfac_bases, wait=Wait.FOR_IT_ALONE)],
)
