"""A layer's EK-FAC eigenvalues over the stored shards: sums that are kept true by subtracting and adding shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lorif_assets.attribution.ledger import Ledger, LedgerEntry
from lorif_assets.attribution.model import CheckpointRecord
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.attribution.versions import preconditioner_version
from lorif_assets.config.recipe import Recipe, content_hash
from lorif_assets.errors import TableError
from lorif_assets.lake.attribution_tables import EKFAC_PRECONDITIONERS
from lorif_assets.lake.lake import FactorFile, Lake

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

_SHOWN_EIGENVALUES = 256


@dataclass(frozen=True)
class FisherFit:
    """A layer's sums over all stored shards, how they came about, and how many shards were read for it."""

    fisher: "FisherDiagonal"
    how: str
    shards_read: int


def write_shard_squares(lake: Lake, folder: str, layer: str, squares: "torch.Tensor") -> None:
    """Store one layer's sum of R * R over the examples of one shard."""
    lake.write_tensors(folder, {"squares": squares.float()}, layer)


def renew_fisher(
    lake: Lake, record: CheckpointRecord, stored: StoredFactors, layer: str, recipe: Recipe, device: "torch.device"
) -> tuple[FisherFit, dict[str, Any]]:
    """Bring a layer's sums up to date, store them, and return them with their new row of `ekfac_preconditioners`.

    From the sums that the layer's row points to, those of shards that changed since are subtracted and those of now
    added. They are added up from nothing where there are none in the same bases, or a replaced shard's file is gone.
    """
    previous = lake.read(EKFAC_PRECONDITIONERS, checkpoint=record.name, layer=layer).to_dicts()
    now = _ledger(stored)
    fit = _fit(lake, stored, layer, recipe, previous[0] if previous else None, now, device)
    eigenvalues = fit.fisher.eigenvalues
    d1, d2 = stored.layer_shapes[layer]
    row = {
        "checkpoint": record.name,
        "layer": layer,
        "d1": d1,
        "d2": d2,
        "eigenvalues": eigenvalues.flatten().topk(min(_SHOWN_EIGENVALUES, d1 * d2)).values.tolist(),
        "trace": float(eigenvalues.sum()),
        "damping": recipe.fisher_damping * float(eigenvalues.mean()),
        "n_examples": fit.fisher.count,
        "state_uri": lake.write_tensors(f"curvature_states/{record.name}", {"squares": fit.fisher.squares}),
        "ledger": now.json(),
        "ledger_hash": now.version,
        "state_version": _state_version(recipe, stored),
        "version": preconditioner_version(recipe, record, stored.shard_hashes),
        "recipe_hash": recipe.preconditioner_hash,
        "weights_hash": record.weights_hash,
        "projection": stored.projection,
        "bases": stored.bases,
    }
    # The row is what makes the tensors exist for readers: it comes last.
    lake.replace(
        EKFAC_PRECONDITIONERS,
        {"checkpoint": record.name, "layer": layer},
        pa.Table.from_pylist([row], schema=EKFAC_PRECONDITIONERS.columns),
    )
    return fit, row


def _fit(
    lake: Lake,
    stored: StoredFactors,
    layer: str,
    recipe: Recipe,
    previous: dict[str, Any] | None,
    now: Ledger,
    device: "torch.device",
) -> FisherFit:
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

    def from_nothing(why: str) -> FisherFit:
        fisher = FisherDiagonal.empty(*stored.layer_shapes[layer], device)
        files = Ledger({}).difference(now).new
        return FisherFit(_with(lake, fisher, files, layer), f"built: {why}", len(files))

    if previous is None:
        return from_nothing("the layer had no sums")
    if previous["state_version"] != _state_version(recipe, stored):
        return from_nothing("the recipe, the weights or the bases changed")
    held = Ledger.parse(previous["ledger"])
    difference = held.difference(now)
    try:
        squares = lake.read_tensors(previous["state_uri"])["squares"].to(device)
        fisher = FisherDiagonal(squares, previous["n_examples"])
        for file in difference.gone:
            fisher = fisher.without(_of_shard(lake, file, layer, device))
    except TableError:
        return from_nothing("the sums or those of replaced shards are gone")
    fisher = _with(lake, fisher, difference.new, layer)
    return FisherFit(fisher, f"updated: {held.explained(now)}", len(difference.gone) + len(difference.new))


def _ledger(stored: StoredFactors) -> Ledger:
    return Ledger(
        {
            file.shard: LedgerEntry(stored.shard_hashes[file.shard], stored.fisher[file.shard], file.rows)
            for file in stored.files
        }
    )


def _state_version(recipe: Recipe, stored: StoredFactors) -> str:
    return content_hash([recipe.factor_hash, stored.weights_hash, stored.projection, stored.bases])


def _with(lake: Lake, fisher: "FisherDiagonal", files: Sequence[FactorFile], layer: str) -> "FisherDiagonal":
    for file in files:
        fisher = fisher.merge(_of_shard(lake, file, layer, fisher.squares.device))
    return fisher


def _of_shard(lake: Lake, file: FactorFile, layer: str, device: "torch.device") -> "FisherDiagonal":
    from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal

    squares = lake.read_tensors(f"{file.path}/{layer}.safetensors")["squares"]
    return FisherDiagonal(squares.double().to(device), file.rows)
