"""Averaging scores over checkpoints: each example's mean over a checkpoint and some earlier ones.

A training example acts on the weights at the time it is seen, so earlier checkpoints count too, by their learning rates
(TracIn, Pruthi et al. 2020, arXiv 2002.08484, sums over checkpoints). Gradients shrink as a model learns: divided by their
spread, the scores of all checkpoints have a say.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.attribution.checkpoints.checkpoint import LoadedCheckpoint, QueriedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.queries.precondition_queries import PreconditionedQueries, preconditioned_queries
from lorif_assets.attribution.queries.run_segments import segment_queries
from lorif_assets.attribution.scores.score_positions import random_positions, scores_at
from lorif_assets.attribution.scores.score_queries import (
    QueryScores,
    comparable_queries,
    extreme_count,
    full_scan,
    run_scan,
)
from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import TokenizedExample
from lorif_assets.errors import MismatchError
from lorif_assets.lake.lake import FactorFile
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.mathematics.scores.relative_influence import ScoredBlock
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.progress import Progress

SPREAD_EXAMPLES = 4_096
"""Stored examples, in whole row groups, over which the spread of a query's scores is taken."""


@dataclass(frozen=True)
class ShardScores:
    """Rows of a number for each of the n examples of one shard at one checkpoint: scores, and squares of sizes."""

    example_ids: Sequence[str]
    rows: Float[Tensor, "R n"]
    weight: float = 1.0


@dataclass(frozen=True)
class AveragedCheckpoint:
    """A checkpoint whose scores enter the average: its factors, the queries preconditioned at it, and its weight.

    Each query's scores, and the squares of sizes as a last row, are divided by `spreads`.
    """

    factors: StoredFactors
    queries: PreconditionedQueries
    weight: float
    spreads: Float[Tensor, " R"] | None

    @classmethod
    def of(
        cls, stored: StoredCheckpoint, queries: PreconditionedQueries, weight: float, device: torch.device
    ) -> "AveragedCheckpoint":
        """Return a checkpoint that counts as its recipe says; spreads are those over random stored examples."""
        if stored.recipe.checkpoint_weights != "scaled":
            return cls(stored.factors, queries, weight, None)
        positions = random_positions(stored.factors, stored.recipe.seed, SPREAD_EXAMPLES)
        sample, _ = scores_at(stored.factors, queries, positions, device)
        spreads = torch.cat([sample.scores.double().std(1, correction=0), sample.squares.double().mean()[None]])
        # A query that scores nothing has no spread.
        return cls(stored.factors, queries, weight, torch.where(spreads > 0, spreads, 1.0).float().to(device))

    def shard_scores(self, shard: str, rows: int | None, device: torch.device) -> ShardScores:
        """Score one shard, `rows` examples at a time."""
        file, layers = self._files[shard], list(self.queries.by_layer)
        blocks = read_ahead(self.factors.scan_blocks(layers, rows, device, [file]))
        scored = (ScoredBlock.of(self.queries.by_layer, block, self.queries.norm_weights) for block in blocks)
        numbers = torch.cat([torch.cat([block.scores, block.squares[None]]) for block in scored], dim=1)
        ids = [
            name
            for _, part in self.factors.lake.stream_factors([file], ["example_id"], file.rows)
            for name in part.column("example_id").to_pylist()
        ]
        return ShardScores(ids, numbers if self.spreads is None else numbers / self.spreads[:, None], self.weight)

    def to(self, device: torch.device) -> "AveragedCheckpoint":
        """Return the same with queries and spreads on a device."""
        spreads = None if self.spreads is None else self.spreads.to(device)
        return replace(self, queries=self.queries.to(device), spreads=spreads)

    @cached_property
    def _files(self) -> Mapping[str, FactorFile]:
        return {file.shard: file for file in self.factors.files}


@dataclass(frozen=True)
class AveragedScorer:
    """Scores examples by the mean over checkpoints, shard by shard, `rows` of them at a time, or as many as fit."""

    newest: AveragedCheckpoint
    earlier: Sequence[AveragedCheckpoint]
    rows: int | None

    def blocks(self, files: Sequence[FactorFile], device: torch.device) -> Iterator[ScoredBlock]:
        """Score the examples of adjacent files, file by file, in their order."""
        newest, earlier = self.newest.to(device), [one.to(device) for one in self.earlier]
        for file in files:
            own = newest.shard_scores(file.shard, self.rows, device)
            averaged = averaged_scores(own, (one.shard_scores(file.shard, self.rows, device) for one in earlier))
            yield ScoredBlock(averaged[:-1], averaged[-1])


def prepare_earlier_checkpoints(
    checkpoint: LoadedCheckpoint,
    earlier_checkpoints: Sequence[StoredCheckpoint],
    weights: Sequence[float],
    queries: Sequence[TokenizedExample],
    model_checkpoints: Checkpoints,
    batch: BatchSettings,
) -> list[AveragedCheckpoint]:
    """Precondition the queries at earlier checkpoints, one after the other: a second model is in memory meanwhile.

    Of the segments of one run (SOURCE), the newest model's gradients are preconditioned for each of them, and none is loaded.

    Args:
        checkpoint: the newest one.
        earlier_checkpoints: those whose scores are averaged with its own.
        weights: of each of them, and of the newest.
        queries: tokenized.
        model_checkpoints: where checkpoints are.
        batch: sizes of batches of queries.

    Raises:
        MismatchError: an earlier checkpoint has a different tokenizer, or factors of other data.
    """
    own = checkpoint.stored
    for one in earlier_checkpoints:
        if one.record.tokenizer_hash != own.record.tokenizer_hash:
            raise MismatchError(
                f"scores of {own.record.name!r} cannot be averaged with those of {one.record.name!r}: their "
                "tokenizers differ. Set `active.checkpoints` to checkpoints with the same one, or "
                "`recipe.averaged_checkpoints = 1`"
            )
        if one.factors.shard_hashes != own.factors.shard_hashes:
            raise MismatchError(
                f"the gradient factors of {one.record.name!r} hold other data than those of {own.record.name!r}, with "
                "which their scores are averaged; materialize `gradient_factors` for both"
            )
    if own.recipe.is_source:
        run = [*earlier_checkpoints, own]
        at_each = (
            segment_queries(checkpoint, run, weights, at, queries, batch) for at in range(len(earlier_checkpoints))
        )
        return [
            AveragedCheckpoint.of(one, prepared_queries, 1.0, checkpoint.device)
            for one, prepared_queries in zip(earlier_checkpoints, at_each, strict=True)
        ]
    prepared = []
    for one, weight in zip(earlier_checkpoints, weights[:-1], strict=True):
        loaded = one.load(model_checkpoints, checkpoint.model.devices)
        prepared_queries = preconditioned_queries(loaded, queries, batch)
        prepared.append(AveragedCheckpoint.of(one, prepared_queries, weight, checkpoint.device))
        # Before loading the next one: the memory is not freed while a name refers to the model.
        del loaded
    return prepared


def score_averaged(
    checkpoint: QueriedCheckpoint,
    weight: float,
    earlier_checkpoints: Sequence[AveragedCheckpoint],
    queries: Sequence[TokenizedExample],
    *,
    top_k: int | Literal["all"],
    batch: BatchSettings,
    progress: Progress,
    reason: str,
) -> QueryScores:
    """Score every stored example for every query by the mean over checkpoints; the losses are those of the newest.

    Args:
        checkpoint: the newest one.
        weight: of it.
        earlier_checkpoints: the others, with the same queries preconditioned at each.
        queries: tokenized.
        top_k: proponents and opponents to return, or every pair.
        batch: sizes of batches of queries and of blocks of factors.
        progress: advances with every block.
        reason: why every example is scored.

    Raises:
        MismatchError: the factors have another projection than the queries.
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    newest: AveragedCheckpoint = checkpoint.with_model(_newest, weight, queries, batch)
    scan = full_scan(newest.factors, len(queries), extreme_count(top_k), reason)
    scorer = AveragedScorer(newest, earlier_checkpoints, batch.scan_rows)
    return run_scan(checkpoint, queries, newest.queries, scan, scorer, top_k=top_k, progress=progress).scores


def _newest(
    checkpoint: LoadedCheckpoint, weight: float, queries: Sequence[TokenizedExample], batch: BatchSettings
) -> AveragedCheckpoint:
    stored = checkpoint.stored
    prepared_queries = comparable_queries(checkpoint, queries, batch)
    if stored.recipe.is_source:
        prepared_queries = segment_queries(checkpoint, [stored], [weight], 0, queries, batch)
        weight = 1.0
    return AveragedCheckpoint.of(stored, prepared_queries, weight, checkpoint.device)


def averaged_scores(scores: ShardScores, earlier_scores: Iterable[ShardScores]) -> Float[Tensor, "R n"]:
    """Return the weighted mean of each row, at the newest checkpoint's examples, over the checkpoints that have the example.

    An example is missing at a checkpoint where its gradient is not finite.
    """
    total = scores.rows * scores.weight
    weights = total.new_full((len(scores.example_ids),), scores.weight)
    place = {name: at for at, name in enumerate(scores.example_ids)}
    for one in earlier_scores:
        known = [(row, place[name]) for row, name in enumerate(one.example_ids) if name in place]
        rows, columns = torch.tensor(known, dtype=torch.long, device=total.device).view(-1, 2).unbind(1)
        total.index_add_(1, columns, one.rows[:, rows] * one.weight)
        weights.index_add_(0, columns, weights.new_full((len(known),), one.weight))
    return total / weights
