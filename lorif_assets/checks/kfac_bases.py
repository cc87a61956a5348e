"""The check of K-FAC bases: more data would not change them."""

import dagster as dg

from lorif_assets.assets.kfac_bases import kfac_bases
from lorif_assets.checks.check_result import check_result
from lorif_assets.influences.trust import SETTLED_AGREEMENT
from lorif_assets.lake.attribution_tables import KFAC_BASES
from lorif_assets.lake.lake import Lake

_ORTHONORMAL = 1e-3


@dg.asset_check(
    asset=kfac_bases.definition,
    description="Bases are orthonormal, and those of each half of the sample fit the other: more data would change little.",
)
def bases_are_settled(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Look at every layer's bases and at how far the halves of the sample agree on them."""
    import torch

    wrong = []
    rows = lake.read(KFAC_BASES).sort("checkpoint", "layer")
    for row in rows.iter_rows(named=True):
        name, tensors = f"{row['checkpoint']}|{row['layer']}", lake.read_tensors(row["uri"])
        for side in ("q_in", "q_out"):
            q = tensors[side].double()
            deviation = float((q.mT @ q - torch.eye(len(q))).abs().max())
            if not deviation <= _ORTHONORMAL:
                wrong.append(f"{name}: {side} differs from an orthonormal basis by {deviation:.2g}")
        if row["half_agreement"] < SETTLED_AGREEMENT:
            wrong.append(
                f"{name}: bases of one half of {row['n_examples']} examples diagonalise "
                f"{row['half_agreement']:.0%} of the other half's covariance"
            )
    return check_result(
        "every layer's bases are settled",
        wrong,
        remedy="raise recipe.kfac_examples",
        severity=dg.AssetCheckSeverity.WARN,
        layers=rows.height,
    )
