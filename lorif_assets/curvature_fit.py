"""Fitting a layer's curvature to the factors in the lake, and finding it again for the queries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorif_assets.attributed_model import CheckpointRecord
from lorif_assets.curvature_ledger import Ledger
from lorif_assets.errors import MismatchError, TableError
from lorif_assets.recipe import Recipe, content_hash
from lorif_assets.stored_factors import StoredFactors
from lorif_assets.versions import ledger_version
from resources.lake import Lake
from resources.schemas import SVD_PRECONDITIONERS

if TYPE_CHECKING:
    import torch

    from lorif_assets.attribution.curvature import CurvatureState
    from lorif_assets.attribution.preconditioner import Preconditioner


@dataclass(frozen=True)
class CurvatureFit:
    """A layer's state over all stored factors, and how it came about."""

    state: "CurvatureState"
    how: str
    rows_read: int


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
    from lorif_assets.attribution.curvature import CurvatureState

    now = Ledger.of(stored)
    if previous is None:
        return _from_scratch(lake, stored, layer, recipe, rows, device, "built: the layer had no state")
    if previous["state_version"] != state_version(recipe, stored):
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
        for block in stored.blocks(lake, [layer], rows, device, difference.gone):
            state = state.remove(block[layer])
    except TableError:
        return _from_scratch(lake, stored, layer, recipe, rows, device, "built: the state or replaced factors are gone")
    for block in stored.blocks(lake, [layer], rows, device, difference.new):
        state = state.add(block[layer])
    return CurvatureFit(state, f"updated: {held.explained(now)}", difference.rows)


def state_version(recipe: Recipe, stored: StoredFactors) -> str:
    """Return the hash of what a state's basis and image depend on besides the data: damping is not among it."""
    return content_hash(
        [recipe.factor_hash, recipe.basis_width, recipe.refinements, stored.weights_hash, stored.projection]
    )


def _from_scratch(
    lake: Lake, stored: StoredFactors, layer: str, recipe: Recipe, rows: int, device: "torch.device", how: str
) -> CurvatureFit:
    from lorif_assets.attribution.curvature import CurvatureState, random_basis

    d1, d2 = stored.layer_shapes[layer]
    state = CurvatureState.empty(random_basis(d1 * d2, recipe.basis_width, recipe.seed).to(device))
    for refinement in range(recipe.refinements + 1):
        if refinement:
            state = state.refined()
        for block in stored.blocks(lake, [layer], rows, device):
            state = state.add(block[layer])
    return CurvatureFit(state, how, stored.n_examples * (recipe.refinements + 1))


@dataclass(frozen=True)
class StoredPreconditioners:
    """The preconditioner rows of one checkpoint, all layers, all fitted to the same data."""

    rows: Mapping[str, Mapping[str, Any]]

    def load(self, lake: Lake, layer: str, recipe: Recipe, device: "torch.device") -> "Preconditioner":
        """Return one layer's preconditioner."""
        import torch

        from lorif_assets.attribution.curvature import Spectrum
        from lorif_assets.attribution.preconditioner import CurvatureForm, DampingRule, Preconditioner

        row = self.rows[layer]
        spectrum = Spectrum(
            torch.tensor(row["eigenvalues"], dtype=torch.float64),
            lake.read_tensors(row["state_uri"])["vectors"].to(device),
            row["trace"],
        )
        return Preconditioner.from_spectrum(
            spectrum, DampingRule(recipe.damping_rule), recipe.damping, CurvatureForm(recipe.curvature_form)
        )


def stored_preconditioners(
    lake: Lake, record: CheckpointRecord, recipe: Recipe, stored: StoredFactors
) -> StoredPreconditioners:
    """Look up a checkpoint's preconditioners.

    Raises:
        MismatchError: a layer has none, or one was fitted under another recipe, to other weights or to other data than
            the stored factors.
    """
    rows = {row["layer"]: row for row in lake.read(SVD_PRECONDITIONERS, checkpoint=record.name).to_dicts()}
    expected = {
        "recipe_hash": recipe.preconditioner_hash,
        "weights_hash": record.weights_hash,
        "projection": stored.projection,
        "ledger_hash": ledger_version(stored.shard_hashes),
    }
    for layer in record.layer_shapes:
        if layer not in rows:
            raise MismatchError(
                f"the layer {layer!r} of checkpoint {record.name!r} has no preconditioner; materialize "
                "`svd_preconditioners` for it first"
            )
        for column, value in expected.items():
            if rows[layer][column] != value:
                raise MismatchError(
                    f"the preconditioner of layer {layer!r} of checkpoint {record.name!r} has {column} "
                    f"{rows[layer][column]}, but factors and settings have {value}"
                    + (
                        f" ({Ledger.parse(rows[layer]['ledger']).explained(Ledger.of(stored))})"
                        if column == "ledger_hash"
                        else ""
                    )
                    + "; materialize `svd_preconditioners` again"
                )
    return StoredPreconditioners({layer: rows[layer] for layer in record.layer_shapes})
