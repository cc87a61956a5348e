"""Scoring query sets at one checkpoint, in the way that the recipe asks for; only this module chooses the way."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from lorif_assets.attribution.checkpoints.averaging_weights import checkpoint_weights
from lorif_assets.attribution.checkpoints.checkpoint import LoadedCheckpoint, QueriedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.scores.score_modes import (
    MergedScans,
    ReadQuerySet,
    Recall,
    RecalledScores,
    ScoredQuerySets,
    ScoreMode,
    SharedScans,
)
from lorif_assets.attribution.scores.score_queries import QueryScores, score_queries
from lorif_assets.attribution.stored.versions import averaged_version
from lorif_assets.config.sections import BatchSettings
from lorif_assets.config.settings import Settings
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from lorif_assets.data.tokens.tokenization import TokenizedExample


@dataclass(frozen=True)
class CheckpointScoring:
    """Scores query sets at one checkpoint, averaged with `earlier_checkpoints` if any; `recall` is the cascade's."""

    log: logging.Logger
    settings: Settings
    model_checkpoints: Checkpoints
    checkpoint: QueriedCheckpoint
    earlier_checkpoints: Sequence[StoredCheckpoint]
    recall: Recall

    def read(self, query_set: str) -> ReadQuerySet:
        """Read and tokenise a query set.

        Raises:
            MismatchError: it is not in `query_examples`.
        """
        return ReadQuerySet.of(self.checkpoint, query_set)

    def scores(self, query_sets: Mapping[str, ReadQuerySet]) -> ScoredQuerySets:
        """Yield the scores of each set as soon as they are computed.

        A set with a query whose loss or gradient is not finite is yielded with that error.
        """
        return self._mode().scores(query_sets)

    @cached_property
    def averaged_weights(self) -> dict[str, float]:
        """The weight of each checkpoint whose scores are averaged, by name; the one in question comes last."""
        records = [one.record for one in self._averaged]
        weights = checkpoint_weights(self.settings.recipe, self.model_checkpoints, records)
        return {record.name: weight for record, weight in zip(records, weights, strict=True)}

    @property
    def _averaged(self) -> Sequence[StoredCheckpoint]:
        return (*self.earlier_checkpoints, self.checkpoint.stored)

    def _mode(self) -> ScoreMode:
        recipe = self.settings.recipe
        if recipe.recalls:
            search_hash = self.settings.influcoder.search_hash
            fallback = self._full_scans("the encoder cannot be trusted with these queries")
            return RecalledScores(self.log, self.checkpoint, self.recall, search_hash, fallback)
        if recipe.added_data == "merged":
            return MergedScans(self.log, self.checkpoint, self.settings.batch)
        return self._full_scans('the recipe says `added_data = "exact"`')

    def _full_scans(self, reason: str) -> SharedScans:
        def scan(queries: "Sequence[TokenizedExample]", progress: Progress) -> QueryScores:
            return score_every_example(
                self.checkpoint,
                self.earlier_checkpoints,
                queries,
                self.model_checkpoints,
                top_k=self.settings.recipe.top_k,
                batch=self.settings.batch,
                progress=progress,
                reason=reason,
            )

        def version(query_set_hash: str) -> str:
            versions = [one.score_version(query_set_hash) for one in self._averaged]
            return averaged_version(self.settings.recipe, versions, list(self.averaged_weights.values()))

        return SharedScans(
            self.log, self.checkpoint, self.settings.batch, 1 + len(self.earlier_checkpoints), scan, version
        )


def longest_query(checkpoint: LoadedCheckpoint) -> int:
    """Return how many tokens of a query are read at most."""
    return checkpoint.model.max_length


def score_every_example(
    checkpoint: QueriedCheckpoint,
    earlier_checkpoints: Sequence[StoredCheckpoint],
    queries: "Sequence[TokenizedExample]",
    model_checkpoints: Checkpoints,
    *,
    top_k: int | Literal["all"],
    batch: BatchSettings,
    progress: Progress,
    reason: str,
) -> QueryScores:
    """Score every stored example for every query: by the checkpoint alone, or averaged with earlier ones.

    Args:
        checkpoint: to which they are put.
        earlier_checkpoints: checkpoints whose scores are averaged with its own, if any.
        queries: tokenized.
        model_checkpoints: where the earlier ones' models are.
        top_k: proponents and opponents to return, or every pair.
        batch: sizes of batches of queries and of blocks of factors.
        progress: advances with every block.
        reason: why every example is scored.

    Raises:
        MismatchError: factors have another projection than the queries, or checkpoints do not go together.
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    if not earlier_checkpoints:
        return score_queries(checkpoint, queries, top_k=top_k, batch=batch, progress=progress, reason=reason)
    from lorif_assets.attribution.scores.score_averaging import (
        AveragedCheckpoint,
        prepare_earlier_checkpoints,
        score_averaged,
    )

    stored = checkpoint.stored
    records = [one.record for one in (*earlier_checkpoints, stored)]
    weights = checkpoint_weights(stored.recipe, model_checkpoints, records)
    prepared: list[AveragedCheckpoint] = checkpoint.with_model(
        prepare_earlier_checkpoints, earlier_checkpoints, weights, queries, model_checkpoints, batch
    )
    return score_averaged(
        checkpoint, weights[-1], prepared, queries, top_k=top_k, batch=batch, progress=progress, reason=reason
    )
