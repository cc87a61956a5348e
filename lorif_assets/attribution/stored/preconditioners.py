"""A checkpoint's preconditioners in the lake: whether they fit the factors and the settings, and their tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorif_assets.attribution.stored.bases import FrozenBases
from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.attribution.stored.lake_curvature import LakeCurvature
from lorif_assets.attribution.stored.ledger import Ledger
from lorif_assets.attribution.stored.versions import ledger_version
from lorif_assets.config.recipe import Recipe
from lorif_assets.errors import MismatchError
from lorif_assets.lake.lake import Lake

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.curvature import LayerPreconditioner


@dataclass(frozen=True)
class StoredPreconditioners:
    """The preconditioner rows of all layers of one checkpoint, fitted to the same data."""

    lake: Lake
    curvature: LakeCurvature
    rows: Mapping[str, Mapping[str, Any]]
    frozen_bases: FrozenBases | None

    @property
    def basis_versions(self) -> dict[str, str]:
        """The basis version of each layer whose basis was refined."""
        return {layer: row["basis_version"] for layer, row in self.rows.items() if row.get("basis_version")}

    def load(self, layer: str, device: "torch.device") -> "LayerPreconditioner":
        """Return one layer's preconditioner.

        Raises:
            TableError: its tensors are gone.
        """
        row = self.rows[layer]
        tensors = {name: tensor.to(device) for name, tensor in self.lake.read_tensors(row["state_uri"]).items()}
        bases = self.frozen_bases.load(self.lake, layer, device) if self.frozen_bases else None
        return self.curvature.preconditioner(row, tensors, bases)


def stored_preconditioners(
    lake: Lake, record: CheckpointRecord, recipe: Recipe, factors: StoredFactors
) -> StoredPreconditioners:
    """Look up a checkpoint's preconditioners.

    Raises:
        MismatchError: a layer has none, or one was fitted under another recipe, or to other weights or data than the
            stored factors.
    """
    curvature = curvature_of(recipe)
    table = curvature.table
    rows = {row["layer"]: row for row in lake.read(table, checkpoint=record.name).to_dicts()}
    expected = {
        "recipe_hash": recipe.preconditioner_hash,
        "weights_hash": record.weights_hash,
        "projection": factors.projection,
        "ledger_hash": ledger_version(factors.shard_hashes),
        **({"bases": record.bases_fingerprint} if record.frozen_bases else {}),
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
                        f" ({Ledger.parse(rows[layer]['ledger']).explained(curvature.ledger(factors))})"
                        if column == "ledger_hash"
                        else ""
                    )
                    + f"; materialize `{table.name}` again"
                )
    return StoredPreconditioners(
        lake, curvature, {layer: rows[layer] for layer in record.layer_shapes}, record.frozen_bases
    )
