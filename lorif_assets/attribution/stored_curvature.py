"""A checkpoint's preconditioners in the lake: whether they fit the factors and the settings, and their tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorif_assets.attribution.ledger import Ledger
from lorif_assets.attribution.model import CheckpointRecord
from lorif_assets.attribution.stored_bases import FrozenBases
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.attribution.versions import ledger_version
from lorif_assets.config.recipe import Recipe
from lorif_assets.errors import MismatchError
from lorif_assets.lake.attribution_tables import EKFAC_PRECONDITIONERS, SVD_PRECONDITIONERS
from lorif_assets.lake.lake import Lake
from lorif_assets.lake.table_schema import TableSchema

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.svd_preconditioner import LayerPreconditioner


def preconditioner_table(recipe: Recipe) -> TableSchema:
    """Return the table that holds the preconditioners of the recipe's curvature; its asset has the same name."""
    return EKFAC_PRECONDITIONERS if recipe.curvature == "ekfac" else SVD_PRECONDITIONERS


@dataclass(frozen=True)
class StoredPreconditioners:
    """The preconditioner rows of one checkpoint, all layers, all fitted to the same data."""

    rows: Mapping[str, Mapping[str, Any]]
    frozen: FrozenBases | None

    @property
    def refined_bases(self) -> dict[str, str]:
        """The basis version of each layer whose curvature was refined."""
        return {layer: row["basis_version"] for layer, row in self.rows.items() if row.get("basis_version")}

    def load(self, lake: Lake, layer: str, recipe: Recipe, device: "torch.device") -> "LayerPreconditioner":
        """Return one layer's preconditioner.

        Raises:
            TableError: its tensors are gone.
        """
        row = self.rows[layer]
        tensors = {name: tensor.to(device) for name, tensor in lake.read_tensors(row["state_uri"]).items()}
        if self.frozen is None:
            return _svd(row, tensors["vectors"], recipe)
        from lorif_assets.mathematics.curvature.ekfac import EkfacPreconditioner, FisherDiagonal

        fisher = FisherDiagonal(tensors["squares"], row["n_examples"])
        return EkfacPreconditioner(self.frozen.load(lake, layer, device), fisher, recipe.fisher_damping)


def _svd(row: Mapping[str, Any], vectors: "torch.Tensor", recipe: Recipe) -> "LayerPreconditioner":
    import torch

    from lorif_assets.mathematics.curvature.svd import Spectrum
    from lorif_assets.mathematics.curvature.svd_preconditioner import CurvatureForm, DampingRule, Preconditioner

    spectrum = Spectrum(torch.tensor(row["eigenvalues"], dtype=torch.float64), vectors, row["trace"])
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
    table = preconditioner_table(recipe)
    rows = {row["layer"]: row for row in lake.read(table, checkpoint=record.name).to_dicts()}
    expected = {
        "recipe_hash": recipe.preconditioner_hash,
        "weights_hash": record.weights_hash,
        "projection": stored.projection,
        "ledger_hash": ledger_version(stored.shard_hashes),
        **({"bases": record.bases} if record.frozen else {}),
    }
    for layer in record.layer_shapes:
        if layer not in rows:
            raise MismatchError(
                f"the layer {layer!r} of checkpoint {record.name!r} has no preconditioner; materialize `{table.name}` for it "
                "first"
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
                    + f"; materialize `{table.name}` again"
                )
    return StoredPreconditioners({layer: rows[layer] for layer in record.layer_shapes}, record.frozen)
