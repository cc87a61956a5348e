"""Checks of the curvature: that what is stored is sound and, of leading eigenpairs, a safe damping and a fitting basis."""

from typing import Any

import dagster as dg

from lorif_assets.attribution.stored.curvatures import curvature_tables, curvatures_in
from lorif_assets.checks.check_result import check_result
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import GRADIENT_FACTORS, SVD_PRECONDITIONERS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

_TRAP = 0.5


def soundness_check(table: TableSchema) -> dg.AssetChecksDefinition:
    """Make the check of what the asset of a table of preconditioners stored."""
    kind = next(iter(curvatures_in(table).values()))
    check = kind.check

    @dg.asset_check(asset=dg.AssetKey(table.name), name=check.name, description=check.description)
    def sound(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
        wrong, deviations = [], [0.0]
        counts = dict(lake.read(GRADIENT_FACTORS, ["checkpoint"]).group_by("checkpoint").len().iter_rows())
        rows = lake.read(table).sort("checkpoint", "layer")
        for row in rows.iter_rows(named=True):
            found = kind.soundness(row, lake.read_tensors(row["state_uri"]), counts.get(row["checkpoint"], 0))
            wrong += [f"{row['checkpoint']}|{row['layer']}: {fault}" for fault in found.faults]
            deviations.append(found.deviation)
        measured: dict[str, Any] = {check.deviation: max(deviations)} if check.deviation else {}
        return check_result(check.summary, wrong, layers=rows.height, **measured)

    return sound


SOUNDNESS_CHECKS = tuple(soundness_check(table) for table in curvature_tables())
"""Of the assets of all curvatures."""


@dg.asset_check(
    asset=dg.AssetKey(SVD_PRECONDITIONERS.name),
    description="In truncated form, damping is not far below the mean of the eigenvalues that were cut off.",
)
def damping_is_safe(settings: dg.ResourceParam[Settings], lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Compare each layer's damping with its tail, where the form ignores the tail."""
    columns = ["checkpoint", "layer", "d1", "d2", "r", "eigenvalues", "trace", "damping"]
    rows = lake.read(SVD_PRECONDITIONERS, columns).sort("checkpoint", "layer")
    wrong = []
    if settings.recipe.curvature_form == "truncated":
        for row in rows.iter_rows(named=True):
            cut_off = row["d1"] * row["d2"] - row["r"]
            tail = max(row["trace"] - sum(row["eigenvalues"][: row["r"]]), 0.0) / cut_off if cut_off else 0.0
            if row["damping"] < _TRAP * tail:
                wrong.append(f"{row['checkpoint']}|{row['layer']}: damping {row['damping']:.3g}, mean tail {tail:.3g}")
    return check_result(
        "no layer's damping is far below its tail",
        wrong,
        remedy='use curvature_form = "tail_corrected", or raise recipe.damping to 1 or more with the trace rule',
        severity=dg.AssetCheckSeverity.WARN,
        layers=rows.height,
    )


@dg.asset_check(
    asset=dg.AssetKey(SVD_PRECONDITIONERS.name),
    description="The eigenvectors capture added data about as well as the data that they were fitted to.",
)
def curvature_has_not_drifted(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """List the layers that need a refinement."""
    columns = ["checkpoint", "layer", "fitted_energy", "added_energy", "added_energy_captured", "needs_refine"]
    rows = lake.read(SVD_PRECONDITIONERS, columns).sort("checkpoint", "layer")
    wrong = [
        f"{row['checkpoint']}|{row['layer']}: {row['added_energy_captured'] / row['added_energy']:.1%} of the added "
        f"gradient energy is captured, {row['fitted_energy']:.1%} of what the basis was fitted to"
        for row in rows.iter_rows(named=True)
        if row["needs_refine"]
    ]
    return check_result(
        "no layer's data drifted out of its basis",
        wrong,
        remedy="materialize `svd_preconditioners` for these layers with the run option `refine: true`",
        severity=dg.AssetCheckSeverity.WARN,
        layers=rows.height,
    )
