"""A checkpoint's preconditioners in the lake: whether they fit the factors and the settings, and their tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorif_assets.attributed_model import CheckpointRecord
from lorif_assets.curvature_ledger import Ledger
from lorif_assets.errors import MismatchError
from lorif_assets.recipe import Recipe
from lorif_assets.stored_factors import StoredFactors
from lorif_assets.versions import ledger_version
from resources.lake import Lake
from resources.schemas import SVD_PRECONDITIONERS

if TYPE_CHECKING:
    import torch

    from lorif_assets.attribution.preconditioner import Preconditioner


@dataclass(frozen=True)
class StoredPreconditioners:
    """The preconditioner rows of one checkpoint, all layers, all fitted to the same data."""

    rows: Mapping[str, Mapping[str, Any]]

    @property
    def refined_bases(self) -> dict[str, str]:
        """The basis version of each layer whose curvature was refined."""
        return {layer: row["basis_version"] for layer, row in self.rows.items() if row["basis_version"]}

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
