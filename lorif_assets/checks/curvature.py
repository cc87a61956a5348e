"""Checks of the curvature: sound eigenpairs, a safe damping, a basis that still fits the data."""

import dagster as dg

from lorif_assets.assets.svd_preconditioners import svd_preconditioners
from lorif_assets.checks.check_result import check_result
from lorif_assets.config.settings import Settings
from lorif_assets.lake.attribution_tables import SVD_PRECONDITIONERS
from lorif_assets.lake.lake import Lake

_TRAP = 0.5


@dg.asset_check(
    asset=svd_preconditioners.definition,
    description="Eigenvectors are orthonormal; eigenvalues sorted, not negative, and no more than the trace.",
)
def curvature_is_sound(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Look at every layer's stored spectrum and vectors."""
    from lorif_assets.mathematics.curvature.svd_curvature import stored_spectrum

    wrong = []
    worst = 0.0
    rows = lake.read(SVD_PRECONDITIONERS).sort("checkpoint", "layer")
    for row in rows.iter_rows(named=True):
        spectrum = stored_spectrum(lake.read_tensors(row["state_uri"]), row)
        worst = max(worst, spectrum.deviation)
        wrong += [f"{row['checkpoint']}|{row['layer']}: {fault}" for fault in spectrum.faults()]
    return check_result("every layer's curvature is sound", wrong, layers=rows.height, largest_deviation=worst)


@dg.asset_check(
    asset=svd_preconditioners.definition,
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
    asset=svd_preconditioners.definition,
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
