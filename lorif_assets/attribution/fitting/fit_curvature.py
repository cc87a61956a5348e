"""A layer's curvature over what the lake stores: built once, then kept up to date by subtracting and adding shards."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lorif_assets.attribution.checkpoints.checkpoint import StoredCheckpoint
from lorif_assets.attribution.checkpoints.opened import OpenedCheckpoint
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.attribution.stored.lake_curvature import LakeCurvature
from lorif_assets.attribution.stored.ledger import Ledger, LedgerDifference
from lorif_assets.attribution.stored.versions import preconditioner_version
from lorif_assets.config.content_hash import content_hash
from lorif_assets.errors import TableError
from lorif_assets.lake.lake import FactorFile

if TYPE_CHECKING:
    import torch

    from lorif_assets.mathematics.curvature.curvature import Curvature
    from lorif_assets.mathematics.curvature.kfac_bases import KfacBases


@dataclass(frozen=True)
class CurvatureFit:
    """A layer's curvature over all stored shards, how it was computed, and what was read for it.

    `basis_version` is "" for a basis that depends on the recipe alone, else the hash of the data that it was refined on.
    """

    curvature: "Curvature[Any]"
    history: str
    rows_read: int
    shards_read: int
    basis_version: str = ""


@dataclass(frozen=True)
class LayerFitting:
    """Fits one layer's curvature from blocks of `rows` examples, or as many as fit.

    `bases` are those that its gradients are whitened in.
    """

    kind: LakeCurvature
    factors: StoredFactors
    layer: str
    bases: "KfacBases | None"
    rows: int | None
    device: "torch.device"

    def fit(self, row: Mapping[str, Any] | None) -> CurvatureFit:
        """Bring the curvature up to date with the stored factors.

        Shards that changed are subtracted from the state that the layer's row points to, read from the files that were
        added at the time, and added as they are now. The state is built from scratch if there is none for the same recipe,
        weights and bases, if that reads fewer factors, or if its file or that of a replaced shard is gone.

        Args:
            row: the layer's row in the curvature's table, if there is one.
        """
        state_words, replaced_words = self.kind.words
        if row is None:
            return self._built(f"the layer had no {state_words}")
        if row["state_version"] != self.kind.state_version(self.factors) or row.get("basis_version", "") is None:
            return self._built("the recipe, the weights or the bases changed")
        old_ledger, ledger = Ledger.parse(row["ledger"]), self.kind.ledger(self.factors)
        difference = old_ledger.difference(ledger)
        if self.kind.reads_factors and difference.rows >= self.factors.n_examples:
            return self._built("most of the data changed")
        try:
            tensors = self.factors.lake.read_tensors(row["state_uri"])
            on_device = {name: tensor.to(self.device) for name, tensor in tensors.items()}
            curvature = self._changed(self.kind.restored(row, on_device, self.bases), difference)
        except TableError:
            return self._built(f"the {state_words} or {replaced_words} are gone")
        return CurvatureFit(
            curvature,
            f"updated: {old_ledger.explained(ledger)}",
            difference.rows,
            len(difference.removals) + len(difference.additions),
            row.get("basis_version", ""),
        )

    def refine(self, fit: CurvatureFit) -> CurvatureFit:
        """Return the curvature in a basis refined on all its data, after one more pass over them."""
        ledger = self.kind.ledger(self.factors)
        everything = Ledger({}).difference(ledger).additions
        return CurvatureFit(
            self._with(fit.curvature.refined(), everything),
            f"refined on all {self.factors.n_examples} examples; before that {fit.history}",
            fit.rows_read + self.factors.n_examples,
            fit.shards_read + len(everything),
            content_hash([fit.basis_version, ledger.version]),
        )

    def _built(self, reason: str) -> CurvatureFit:
        everything = Ledger({}).difference(self.kind.ledger(self.factors)).additions
        empty = self.kind.empty(self.factors.layer_shapes[self.layer], self.bases, self.device)
        curvature, passes = self._with(empty, everything), 1 + self.kind.refinements
        for _ in range(self.kind.refinements):
            curvature = self._with(curvature.refined(), everything)
        return CurvatureFit(curvature, f"built: {reason}", passes * self.factors.n_examples, passes * len(everything))

    def _changed(self, curvature: "Curvature[Any]", difference: LedgerDifference) -> "Curvature[Any]":
        # What is subtracted and what is added go together, block by block: one pass over the state for both.
        for removed, added in zip_longest(self._parts(difference.removals), self._parts(difference.additions)):
            if added is None:
                curvature = curvature.remove(removed)
            elif removed is None:
                curvature = curvature.add(added)
            else:
                curvature = curvature.exchange(removed, added)
        return curvature

    def _with(self, curvature: "Curvature[Any]", files: Sequence[FactorFile]) -> "Curvature[Any]":
        for part in self._parts(files):
            curvature = curvature.add(part)
        return curvature

    def _parts(self, files: Sequence[FactorFile]) -> Iterator[Any]:
        return self.kind.parts(self.factors, self.layer, files, self.rows, self.device)


def fitted_row(
    checkpoint: StoredCheckpoint,
    layer: str,
    *,
    rows: int | None,
    device: "torch.device",
    refine_below: float,
    refine: bool,
) -> tuple[CurvatureFit, dict[str, Any]]:
    """Bring a layer's curvature up to date, write its tensors, and return it with the row that will point to them.

    Args:
        checkpoint: with its factors; its recipe names the curvature, its rank, refinements and damping.
        layer: the layer's name.
        rows: examples of a block; None: as many as fit.
        device: where to compute.
        refine_below: the row asks for a refinement if added data are captured less than this many times as well.
        refine: fit the basis to the current data, in one more pass over all of them.
    """
    lake, recipe, record, stored = checkpoint.lake, checkpoint.recipe, checkpoint.record, checkpoint.factors
    kind = curvature_of(recipe)
    fitting = LayerFitting(kind, stored, layer, checkpoint.bases(layer, device), rows, device)
    previous = lake.read(kind.table, checkpoint=record.name, layer=layer).to_dicts()
    fit = fitting.fit(previous[0] if previous else None)
    if refine:
        fit = fitting.refine(fit)
    ledger = kind.ledger(stored)
    d1, d2 = stored.layer_shapes[layer]
    row = {
        "checkpoint": record.name,
        "layer": layer,
        "d1": d1,
        "d2": d2,
        **fit.curvature.figures(),
        **kind.columns(fit.curvature, stored, fit.basis_version, refine_below),
        "n_examples": fit.curvature.count,
        "state_uri": lake.write_tensors(f"curvature_states/{record.name}", fit.curvature.tensors()),
        "ledger": ledger.json(),
        "ledger_hash": ledger.version,
        "state_version": kind.state_version(stored),
        "version": preconditioner_version(recipe, record, stored.shard_hashes),
        "recipe_hash": recipe.preconditioner_hash,
        "weights_hash": record.weights_hash,
        "projection": stored.projection,
    }
    return fit, row


def commit_row(checkpoint: StoredCheckpoint, row: Mapping[str, Any]) -> None:
    """Store a layer's row. It comes last: readers find the tensors through it."""
    table = curvature_of(checkpoint.recipe).table
    partition = {"checkpoint": row["checkpoint"], "layer": row["layer"]}
    checkpoint.lake.replace(table, partition, pa.Table.from_pylist([dict(row)], schema=table.columns))


@dataclass(frozen=True)
class FittedLayer:
    """A layer's row, whose tensors are written, how it was computed, and what was read for it."""

    row: Mapping[str, Any]
    history: str
    rows_read: int
    shards_read: int


def fitted_layer(state: OpenedCheckpoint, layer: str, refine_below: float, refine: bool) -> FittedLayer:
    """Bring a layer's curvature up to date on a worker, as `fitted_row` does."""
    rows, device = state.batch.scan_rows, state.device
    fit, row = fitted_row(state.stored, layer, rows=rows, device=device, refine_below=refine_below, refine=refine)
    return FittedLayer(row, fit.history, fit.rows_read, fit.shards_read)


def commit_layer(checkpoint: StoredCheckpoint, fitted: FittedLayer) -> FittedLayer:
    """Store a fitted layer's row, and return the layer."""
    commit_row(checkpoint, fitted.row)
    return fitted
