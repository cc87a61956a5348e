"""A layer's curvature over the factors in the lake: built once, then kept true by subtracting and adding shards."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lorif_assets.attribution.ledger import Ledger
from lorif_assets.attribution.model import CheckpointRecord
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.attribution.versions import preconditioner_version
from lorif_assets.config.recipe import Recipe, content_hash
from lorif_assets.errors import TableError
from lorif_assets.lake.attribution_tables import SVD_PRECONDITIONERS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.read_ahead import read_ahead

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.drift import BasisDrift
    from lorif_assets.mathematics.curvature.svd import CurvatureState


@dataclass(frozen=True)
class CurvatureFit:
    """A layer's state over all stored factors, and how it came about.

    `basis_version` is "" for a basis that follows from the recipe alone, else the hash of the data that it was refined
    on. `drift` is that of the data added since the basis was fitted; None right after a fit.
    """

    state: "CurvatureState"
    how: str
    rows_read: int
    basis_version: str = ""
    drift: "BasisDrift | None" = None


def fit_curvature(
    lake: Lake,
    stored: StoredFactors,
    layer: str,
    recipe: Recipe,
    previous: Mapping[str, Any] | None,
    *,
    rows: int,
    device: "torch.device",
) -> CurvatureFit:
    """Bring a layer's state up to date with the stored factors.

    From the state that the layer's row points to, the shards that changed since are subtracted, read from the files
    that were added then, and added as they are now. The state is built from scratch where there is none of the same
    recipe and weights, where that reads less, and where its file or that of replaced factors is gone.

    Args:
        lake: tables and tensors.
        stored: the factors.
        layer: its name.
        recipe: rank, oversampling and refinements.
        previous: the layer's row in `svd_preconditioners`, if there is one.
        rows: examples of a block.
        device: where to compute.
    """
    from lorif_assets.mathematics.curvature.drift import BasisDrift
    from lorif_assets.mathematics.curvature.svd import CurvatureState

    now = Ledger.of(stored)
    if previous is None:
        return _from_scratch(lake, stored, layer, recipe, rows, device, "built: the layer had no state")
    if previous["state_version"] != state_version(recipe, stored) or previous["basis_version"] is None:
        return _from_scratch(lake, stored, layer, recipe, rows, device, "built: the recipe or the weights changed")
    held = Ledger.parse(previous["ledger"])
    difference = held.difference(now)
    if difference.rows >= stored.n_examples:
        return _from_scratch(lake, stored, layer, recipe, rows, device, "built: most of the data changed")
    try:
        tensors = lake.read_tensors(previous["state_uri"])
        state = CurvatureState(
            tensors["basis"].to(device), tensors["image"].to(device), previous["trace"], previous["n_examples"]
        )
        for block in read_ahead(stored.blocks(lake, [layer], rows, device, difference.gone)):
            state = state.remove(block[layer])
    except TableError:
        return _from_scratch(lake, stored, layer, recipe, rows, device, "built: the state or replaced factors are gone")
    drift = BasisDrift(previous["fitted_energy"], previous["added_energy"], previous["added_energy_captured"])
    vectors = tensors["vectors"].to(device)
    for block in read_ahead(stored.blocks(lake, [layer], rows, device, difference.new)):
        state = state.add(block[layer])
        drift = drift.add(vectors, block[layer])
    return CurvatureFit(state, f"updated: {held.explained(now)}", difference.rows, previous["basis_version"], drift)


def refine_curvature(
    lake: Lake, stored: StoredFactors, layer: str, fit: CurvatureFit, *, rows: int, device: "torch.device"
) -> CurvatureFit:
    """Return the state in the basis qr(Z) of an up-to-date one, from one more pass over all stored factors."""
    state = fit.state.refined()
    for block in read_ahead(stored.blocks(lake, [layer], rows, device)):
        state = state.add(block[layer])
    return CurvatureFit(
        state,
        f"refined on all {stored.n_examples} examples; before that {fit.how}",
        fit.rows_read + stored.n_examples,
        content_hash([fit.basis_version, Ledger.of(stored).version]),
    )


def state_version(recipe: Recipe, stored: StoredFactors) -> str:
    """Return the hash of what a state's basis and image depend on besides the data: damping is not among it."""
    return content_hash(
        [recipe.factor_hash, recipe.basis_width, recipe.refinements, stored.weights_hash, stored.projection]
    )


def refined_bases(lake: Lake, checkpoint: str) -> dict[str, str]:
    """Return the basis version of each layer of a checkpoint whose curvature was refined."""
    rows = lake.read(SVD_PRECONDITIONERS, ["layer", "basis_version"], checkpoint=checkpoint)
    return {layer: version for layer, version in rows.iter_rows() if version}


def _from_scratch(
    lake: Lake, stored: StoredFactors, layer: str, recipe: Recipe, rows: int, device: "torch.device", how: str
) -> CurvatureFit:
    from lorif_assets.mathematics.curvature.svd import CurvatureState, random_basis

    d1, d2 = stored.layer_shapes[layer]
    state = CurvatureState.empty(random_basis(d1 * d2, recipe.basis_width, recipe.seed).to(device))
    for refinement in range(recipe.refinements + 1):
        if refinement:
            state = state.refined()
        for block in read_ahead(stored.blocks(lake, [layer], rows, device)):
            state = state.add(block[layer])
    return CurvatureFit(state, how, stored.n_examples * (recipe.refinements + 1))


def renew_layer(
    lake: Lake,
    record: CheckpointRecord,
    stored: StoredFactors,
    layer: str,
    recipe: Recipe,
    *,
    rows: int,
    device: "torch.device",
    refine_below: float,
    refine: bool = False,
) -> tuple[CurvatureFit, dict[str, Any]]:
    """Bring a layer's state up to date, store it, and return it with its new row of `svd_preconditioners`.

    Args:
        lake: tables and tensors.
        record: the checkpoint.
        stored: its factors.
        layer: the layer's name.
        recipe: rank, oversampling, refinements and damping.
        rows: examples of a block.
        device: where to compute.
        refine_below: the row asks for a refinement where added data are captured less than this times as well.
        refine: fit the basis to the data of now, in one more pass over all of them.
    """
    from lorif_assets.mathematics.curvature.drift import BasisDrift
    from lorif_assets.mathematics.curvature.svd_preconditioner import LEADING_EXTRA, DampingRule, damping

    previous = lake.read(SVD_PRECONDITIONERS, checkpoint=record.name, layer=layer).to_dicts()
    fit = fit_curvature(lake, stored, layer, recipe, previous[0] if previous else None, rows=rows, device=device)
    if refine:
        fit = refine_curvature(lake, stored, layer, fit, rows=rows, device=device)
    state, ledger = fit.state, Ledger.of(stored)
    spectrum = state.spectrum(recipe.r, LEADING_EXTRA)
    drift = fit.drift or BasisDrift(spectrum.captured_energy)
    d1, d2 = stored.layer_shapes[layer]
    tensors = {"basis": state.basis, "image": state.image, "vectors": spectrum.vectors}
    row = {
        "checkpoint": record.name,
        "layer": layer,
        "d1": d1,
        "d2": d2,
        "r": spectrum.vectors.shape[1],
        "eigenvalues": spectrum.eigenvalues.tolist(),
        "trace": spectrum.trace,
        "damping": damping(DampingRule(recipe.damping_rule), recipe.damping, spectrum),
        "captured_energy": spectrum.captured_energy,
        "basis_version": fit.basis_version,
        "fitted_energy": drift.fitted_share,
        "added_energy": drift.energy,
        "added_energy_captured": drift.captured,
        "needs_refine": drift.is_below(refine_below),
        "n_examples": state.count,
        "state_uri": lake.write_tensors(f"curvature_states/{record.name}", tensors),
        "ledger": ledger.json(),
        "ledger_hash": ledger.version,
        "state_version": state_version(recipe, stored),
        "version": preconditioner_version(recipe, record, stored.shard_hashes),
        "recipe_hash": recipe.preconditioner_hash,
        "weights_hash": record.weights_hash,
        "projection": stored.projection,
    }
    # The row is what makes the tensors exist for readers: it comes last.
    lake.replace(
        SVD_PRECONDITIONERS,
        {"checkpoint": record.name, "layer": layer},
        pa.Table.from_pylist([row], schema=SVD_PRECONDITIONERS.columns),
    )
    return fit, row
