"""Averaging scores over checkpoints: each example's mean over a checkpoint and some earlier ones.

A training example acts on the weights at the time it is seen, so earlier checkpoints count as much as later ones
(TracIn, Pruthi et al. 2020, arXiv 2002.08484, sums over checkpoints).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from lorif_assets.attribution.checkpoint import AttributedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.precondition_queries import preconditioned_queries
from lorif_assets.attribution.score_queries import QueryScores, comparable_queries, extreme_count, full_scan, run_scan
from lorif_assets.attribution.stored_factors import StoredFactors
from lorif_assets.config.settings import BatchSettings
from lorif_assets.data.tokenization import TokenizedExample
from lorif_assets.errors import MismatchError
from lorif_assets.lake.lake import FactorFile
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.mathematics.scores.scoring import Queries, block_scores
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.progress import Progress


@dataclass(frozen=True)
class ShardScores:
    """Scores [Q, n] of the n examples of one shard at one checkpoint."""

    example_ids: Sequence[str]
    scores: Float[Tensor, "Q n"]


@dataclass(frozen=True)
class EarlierCheckpoint:
    """An earlier checkpoint whose scores enter the average: its factors, and the queries preconditioned at it."""

    factors: StoredFactors
    queries: Mapping[str, Queries]

    def shard_scores(self, shard: str, rows: int | None, device: torch.device) -> ShardScores:
        """Score one shard, `rows` examples at a time."""
        return shard_scores(self.factors, self.queries, self._files[shard], rows, device)

    @cached_property
    def _files(self) -> Mapping[str, FactorFile]:
        return {file.shard: file for file in self.factors.files}


def prepare_earlier_checkpoints(
    checkpoint: AttributedCheckpoint,
    earlier_checkpoints: Sequence[StoredCheckpoint],
    queries: Sequence[TokenizedExample],
    model_checkpoints: Checkpoints,
    batch: BatchSettings,
) -> list[EarlierCheckpoint]:
    """Precondition the queries at earlier checkpoints, one after the other: a second model is in memory meanwhile.

    Args:
        checkpoint: the newest one.
        earlier_checkpoints: those whose scores are averaged with its own.
        queries: tokenized.
        model_checkpoints: where checkpoints are.
        batch: sizes of batches of queries.

    Raises:
        MismatchError: an earlier checkpoint has a different tokenizer, or factors of other data.
    """
    own, prepared = checkpoint.stored, []
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
        loaded = one.load(model_checkpoints, checkpoint.model.devices)
        by_layer = preconditioned_queries(loaded, queries, batch).by_layer
        prepared.append(EarlierCheckpoint(one.factors, by_layer))
        # Before loading the next one: the memory is not freed while a name refers to the model.
        del loaded
    return prepared


def score_averaged(
    checkpoint: AttributedCheckpoint,
    earlier_checkpoints: Sequence[EarlierCheckpoint],
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
    prepared_queries = comparable_queries(checkpoint, queries, batch)
    stored, rows, device = checkpoint.stored.factors, batch.scan_rows, checkpoint.model.device

    def scores(files: Sequence[FactorFile]) -> Iterator[Tensor]:
        for file in files:
            own = shard_scores(stored, prepared_queries.by_layer, file, rows, device)
            yield averaged_scores(own, (one.shard_scores(file.shard, rows, device) for one in earlier_checkpoints))

    scan = full_scan(stored, len(queries), extreme_count(top_k), reason)
    return run_scan(checkpoint, queries, prepared_queries, scan, scores, top_k=top_k, progress=progress).scores


def shard_scores(
    factors: StoredFactors,
    queries: Mapping[str, Queries],
    file: FactorFile,
    rows: int | None,
    device: torch.device,
) -> ShardScores:
    """Score the examples of one file, `rows` at a time, or as many as fit."""
    blocks = factors.scan_blocks(list(queries), rows, device, [file])
    ids = [
        name
        for _, part in factors.lake.stream_factors([file], ["example_id"], file.rows)
        for name in part.column("example_id").to_pylist()
    ]
    return ShardScores(ids, torch.cat([block_scores(queries, block) for block in read_ahead(blocks)], dim=1))


def averaged_scores(scores: ShardScores, earlier_scores: Iterable[ShardScores]) -> Float[Tensor, "Q n"]:
    """Return the mean score of each of the newest checkpoint's examples over the checkpoints that have it.

    An example is missing at a checkpoint where its gradient is not finite.
    """
    total = scores.scores.clone()
    count = total.new_ones(len(scores.example_ids))
    place = {name: at for at, name in enumerate(scores.example_ids)}
    for one in earlier_scores:
        known = [(row, place[name]) for row, name in enumerate(one.example_ids) if name in place]
        rows, columns = torch.tensor(known, dtype=torch.long, device=total.device).view(-1, 2).unbind(1)
        total.index_add_(1, columns, one.scores[:, rows])
        count.index_add_(0, columns, count.new_ones(len(known)))
    return total / count
