"""LoRIF in memory: a loaded model and its examples, without a lake.

Gradients, factors, curvature and scores are computed as for the lake. All that is kept of an example is what would be
stored: its factors as bytes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lorif_assets.attribution.checkpoints.model import AttributedModel
from lorif_assets.attribution.factors.factor_rows import factor_rows
from lorif_assets.attribution.factors.sound_examples import NotFiniteError
from lorif_assets.attribution.fitting.fit_bases import (
    KfacFit,
    fit_sound_layers,
    fit_tokens,
    sample_rows,
    without_unsound,
)
from lorif_assets.attribution.fitting.measured_width import at_measured_width, measured_tokens
from lorif_assets.attribution.pairs.listed_examples import tokenized_by_shard
from lorif_assets.attribution.pairs.token_rows import token_rows
from lorif_assets.attribution.queries.precondition_queries import precondition
from lorif_assets.attribution.recipes.block_rows import block_rows, scanned_numbers
from lorif_assets.attribution.scores.score_queries import QueryScores, extreme_count, listed_scores
from lorif_assets.attribution.scores.stored_rankings import leading_rows
from lorif_assets.attribution.stored.bases import FrozenBases
from lorif_assets.attribution.stored.curvatures import curvature_of
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.rows.rejected import RejectedRow
from lorif_assets.data.tokens.tokenization import TokenizedExample, n_tokens
from lorif_assets.errors import SettingsError
from lorif_assets.mathematics.curvature.curvature import Curvature, LayerPreconditioner
from lorif_assets.mathematics.curvature.ekfac import FisherDiagonal
from lorif_assets.mathematics.curvature.kfac_bases import KfacBases
from lorif_assets.mathematics.factors.codec import FactorCodec, decode, scored_form
from lorif_assets.mathematics.factors.low_rank import GradientFactors
from lorif_assets.mathematics.factors.packed_signs import LayerFactors
from lorif_assets.mathematics.scores.relative_influence import Rankings, ScoredBlock
from lorif_assets.mathematics.scores.scoring import block_scores
from lorif_assets.progress import Progress


@dataclass(frozen=True)
class InMemoryAttribution:
    """A model, the factors of its examples, and the inverse curvature of each layer."""

    attributed: AttributedModel
    shard: str
    example_ids: Sequence[str]
    factors: Mapping[str, UInt8[Tensor, "n bytes"]]
    inverses: Mapping[str, LayerPreconditioner]
    not_finite: Sequence[RejectedRow]
    """Examples that are left out because their loss or a gradient is not finite."""
    batch: BatchSettings

    @classmethod
    def fit(
        cls,
        attributed: AttributedModel,
        rows: pl.DataFrame,
        examples: Sequence[TokenizedExample],
        batch: BatchSettings,
    ) -> "InMemoryAttribution":
        """Compute factors and curvature of some examples.

        Args:
            attributed: the model under a recipe; its curvature's bases are fitted here.
            rows: the examples as one shard, with the columns shard, row and content_hash.
            examples: those of them that can be used, tokenized.
            batch: budgets of memory.

        Raises:
            LorifError: no example has a finite loss and finite gradients, or a single one does not fit in memory.
            SettingsError: the byte budget does not pay for one component of every layer.
        """
        bases: dict[str, KfacBases] = {}
        if attributed.recipe.whitens:
            attributed, bases = _whitened(attributed, rows, examples, batch)
        with Progress("gradient factors", n_tokens(examples), "tok") as progress:
            computed = factor_rows(attributed, examples, bases, batch, progress)
        attribution = cls(
            attributed,
            rows["shard"][0],
            computed.rows["example_id"].to_pylist(),
            {layer: _bytes_of(computed.rows[layer]) for layer in attributed.record.layer_shapes},
            {},
            computed.not_finite,
            batch,
        )
        count = len(attribution.example_ids)
        sums = {layer: FisherDiagonal(squares, count, computed.squared) for layer, squares in computed.squares.items()}
        inverses = {
            layer: attribution.fitted_curvature(layer, bases.get(layer), sums.get(layer)).preconditioner()
            for layer in attributed.record.layer_shapes
        }
        return replace(attribution, inverses=inverses)

    def blocks(self, layers: Iterable[str]) -> Iterator[dict[str, GradientFactors]]:
        """Yield the factors of some layers on the device, `batch.scan_rows` examples at a time, or as many as fit."""
        shapes, codec = self.attributed.record.layer_shapes, FactorCodec(self.attributed.recipe.factor_dtype)
        numbers = self._numbers_of(layers)
        for block in self._stored_blocks(numbers, sum(numbers.values())):
            yield {layer: decode(data, codec, *shapes[layer]) for layer, data in block.items()}

    def scan_blocks(self, layers: Iterable[str]) -> Iterator[dict[str, LayerFactors]]:
        """Yield the same blocks in the form that is scored fastest."""
        shapes, codec = self.attributed.record.layer_shapes, FactorCodec(self.attributed.recipe.factor_dtype)
        numbers = self._numbers_of(layers)
        held = scanned_numbers(numbers, codec, self.attributed.device)
        for block in self._stored_blocks(numbers, held):
            yield {layer: scored_form(data, codec, *shapes[layer]) for layer, data in block.items()}

    def _numbers_of(self, layers: Iterable[str]) -> dict[str, int]:
        numbers = self.attributed.record.decoded_numbers(self.attributed.recipe)
        return {layer: numbers[layer] for layer in layers}

    def _stored_blocks(self, layers: Iterable[str], held: int) -> Iterator[dict[str, UInt8[Tensor, "n bytes"]]]:
        names, device = list(layers), self.attributed.device
        rows = self.batch.scan_rows or block_rows(held, device)
        for first in range(0, len(self.example_ids), rows):
            at = slice(first, first + rows)
            yield {name: self.factors[name][at].to(device) for name in names}

    def fitted_curvature(self, layer: str, bases: KfacBases | None, sums: FisherDiagonal | None) -> Curvature[Any]:
        """Return a layer's curvature over all examples.

        Args:
            layer: its name.
            bases: those that its gradients are whitened in; None without whitening.
            sums: of the squared rotated gradients of all examples; None without bases.
        """
        kind = curvature_of(self.attributed.recipe)
        curvature = kind.empty(self.attributed.record.layer_shapes[layer], bases, self.attributed.device)
        for refinement in range(kind.refinements + 1):
            curvature = curvature.refined() if refinement else curvature
            for block in self.blocks([layer]):
                curvature = curvature.add(kind.part(block[layer], sums))
                if not kind.reads_factors:
                    # The sums are over all blocks.
                    break
        return curvature

    def scores(self, queries: Sequence[TokenizedExample]) -> Float[Tensor, "Q n"]:
        """Return the score of every example for every query.

        Raises:
            UnsoundQueryError: a query's loss or gradient is not finite.
        """
        prepared_queries = precondition(self.attributed, queries, self.inverses.__getitem__, self.batch)
        return torch.cat(
            [
                block_scores(prepared_queries.by_layer, block).cpu()
                for block in self.scan_blocks(prepared_queries.by_layer)
            ],
            dim=1,
        )

    def score(self, queries: Sequence[TokenizedExample], top_k: int | Literal["all"]) -> QueryScores:
        """Score every example for every query.

        Args:
            queries: tokenized.
            top_k: proponents and opponents to return, or every pair.

        Raises:
            UnsoundQueryError: a query's loss or gradient is not finite.
        """
        prepared_queries = precondition(self.attributed, queries, self.inverses.__getitem__, self.batch)
        rankings, every = Rankings.empty(len(queries), extreme_count(top_k), len(self.example_ids)), []
        for factors in self.scan_blocks(prepared_queries.by_layer):
            block = ScoredBlock.of(prepared_queries.by_layer, factors, prepared_queries.norm_weights)
            rankings = rankings.update(block, rankings.moments.count)
            if top_k == "all":
                every.append(block.scores.cpu())
        return listed_scores(
            queries,
            prepared_queries,
            rankings.on_cpu(),
            every,
            self._named,
            top_k=top_k,
            scan="in memory",
            examples_scanned=rankings.moments.count,
        )

    def token_rows(
        self, scored: QueryScores, queries: Sequence[TokenizedExample], rows: pl.DataFrame, tokens: int
    ) -> pl.DataFrame:
        """Return what each token of leading pairs contributed.

        Args:
            scored: for the queries.
            queries: tokenized.
            rows: of the examples, as `fit` was given them.
            tokens: proponents and opponents of each query whose tokens are scored.
        """
        listed = leading_rows(scored.scores, tokens)
        examples = tokenized_by_shard(
            self.attributed, rows.join(listed.unique("example_id"), on=["shard", "example_id"], how="semi")
        )
        with Progress("tokens", listed.height, "pairs") as progress:
            return token_rows(
                self.attributed, self.inverses.__getitem__, queries, listed, examples, self.batch, progress
            )

    def _named(self, positions: Iterable[int]) -> dict[int, tuple[str, str]]:
        return {position: (self.example_ids[position], self.shard) for position in positions}


def _whitened(
    attributed: AttributedModel, rows: pl.DataFrame, examples: Sequence[TokenizedExample], batch: BatchSettings
) -> tuple[AttributedModel, dict[str, KfacBases]]:
    """Fit the bases to a sample, drawn as from a lake, and return them with the model, whose record has their ranks.

    Raises:
        SettingsError: the curvature is made of an optimiser's state, and a model in memory has none.
    """
    if attributed.recipe.reads_optimizer:
        raise SettingsError(
            f"`recipe.curvature = {attributed.recipe.curvature!r}` reads the optimiser's state beside a checkpoint's weights, "
            'which a model in memory has not; take "ekfac", or attribute the checkpoint from a project'
        )
    usable = {example.row: example for example in examples}
    sample = [usable[row] for row in sample_rows(rows, attributed.recipe)["row"] if row in usable]
    with Progress("widths", measured_tokens(attributed, sample), "tok") as progress:
        try:
            attributed, _ = at_measured_width(attributed, sample, batch, progress)
        except NotFiniteError:
            sound, _ = without_unsound(attributed, sample, batch, progress.log)
            attributed, _ = at_measured_width(attributed, sound, batch, progress)
    with Progress("K-FAC bases", fit_tokens(sample), "tok") as progress:
        layers, unsound = fit_sound_layers(attributed, sample, batch, progress)
    fingerprint = KfacFit(layers, len(sample) - len(unsound), "").fingerprint
    ranks = {layer: fitted.rank for layer, fitted in layers.items()}
    recipe = attributed.recipe
    frozen = FrozenBases(fingerprint, ranks, {}, recipe.whitening_damping, recipe.whitening_rank)
    record = replace(attributed.record, frozen_bases=frozen)
    return replace(attributed, record=record), {layer: fitted.bases for layer, fitted in layers.items()}


def _bytes_of(column: pa.ChunkedArray) -> UInt8[Tensor, "n bytes"]:
    values = column.combine_chunks()
    data = np.frombuffer(values.buffers()[2], dtype=np.uint8)
    # A copy: the buffer is for reading only.
    return torch.from_numpy(data.reshape(len(values), -1).copy())
