"""Checks of curvatures in K-FAC bases: bases that more data would not change, sums that hold what is stored."""

import dagster as dg

from lorif_assets.assets.ekfac_preconditioners import ekfac_preconditioners
from lorif_assets.assets.kfac_bases import kfac_bases
from lorif_assets.checks.check_result import check_result
from lorif_assets.lake.attribution_tables import EKFAC_PRECONDITIONERS, GRADIENT_FACTORS, KFAC_BASES
from lorif_assets.lake.lake import Lake

_ORTHONORMAL = 1e-3
_SETTLED = 0.9


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
        if row["half_agreement"] < _SETTLED:
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


@dg.asset_check(
    asset=ekfac_preconditioners.definition,
    description="Sums of squares are finite and not negative, and hold exactly the shards' examples that are stored.",
)
def fisher_is_sound(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Look at every layer's sums and at the number of examples in them."""
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

    wrong = []
    counts = dict(lake.read(GRADIENT_FACTORS, ["checkpoint"]).group_by("checkpoint").len().iter_rows())
    rows = lake.read(EKFAC_PRECONDITIONERS).sort("checkpoint", "layer")
    for row in rows.iter_rows(named=True):
        name = f"{row['checkpoint']}|{row['layer']}"
        sums = FisherDiagonal(lake.read_tensors(row["state_uri"])["squares"], row["n_examples"])
        wrong += [f"{name}: {fault}" for fault in sums.faults()]
        if row["n_examples"] != counts.get(row["checkpoint"], 0):
            wrong.append(f"{name}: holds {row['n_examples']} of {counts.get(row['checkpoint'], 0)} stored examples")
    return check_result("every layer's sums are sound", wrong, layers=rows.height)
