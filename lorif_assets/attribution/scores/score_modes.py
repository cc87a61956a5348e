"""The ways to score query sets at one checkpoint: full scans that they share, merged scans, and recall."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import polars as pl

from lorif_assets.attribution.checkpoints.checkpoint import LoadedCheckpoint, QueriedCheckpoint
from lorif_assets.attribution.scores.score_queries import QueryScores, extreme_count
from lorif_assets.attribution.scores.score_query_sets import queries_per_scan, scan_count, score_query_sets
from lorif_assets.attribution.stored.versions import recalled_version
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.stored_examples import stored_query_set
from lorif_assets.errors import UnsoundQueryError
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

    from lorif_assets.data.tokens.tokenization import TokenizedExample, TokenizedShard


def tokenized_queries(checkpoint: LoadedCheckpoint, rows: "pa.Table") -> "TokenizedShard":
    """Return queries as token ids and labels; those that cannot be used are listed with the reason."""
    return checkpoint.model.tokenized_queries(rows)


@dataclass(frozen=True)
class ReadQuerySet:
    """The rows of a query set, and its queries tokenized for one checkpoint."""

    rows: pl.DataFrame
    tokenized: "TokenizedShard"

    @classmethod
    def of(cls, checkpoint: QueriedCheckpoint, query_set: str) -> "ReadQuerySet":
        """Read and tokenise a query set.

        Raises:
            MismatchError: it is not in `query_examples`.
        """
        rows = stored_query_set(checkpoint.stored.lake, query_set)
        return cls(rows, checkpoint.with_model(tokenized_queries, rows.to_arrow()))

    @property
    def version(self) -> str:
        """The hash of its rows."""
        return str(self.rows["query_set_hash"][0])


@dataclass(frozen=True)
class ScoredQuerySet:
    """Scores of a query set, their data version, and how they were computed."""

    scores: QueryScores
    version: str
    metadata: dict[str, Any]


ScoredQuerySets = Iterator[tuple[str, ScoredQuerySet | UnsoundQueryError]]
"""Query sets by name, each with its scores, or with the error of a query whose loss or gradient is not finite."""


class ScoreMode(Protocol):
    """A way to score query sets at one checkpoint."""

    def scores(self, query_sets: Mapping[str, ReadQuerySet]) -> ScoredQuerySets:
        """Yield the scores of each set as soon as they are computed."""
        ...


@dataclass(frozen=True)
class SharedScans:
    """Every example is scored, in scans of as many queries of any sets as memory holds.

    `scan` scores some queries; `version` returns the version of a set's scores from the hash of its rows. A scan holds each
    query once for each of `n_checkpoints`.
    """

    log: logging.Logger
    checkpoint: QueriedCheckpoint
    batch: BatchSettings
    n_checkpoints: int
    scan: "Callable[[Sequence[TokenizedExample], Progress], QueryScores]"
    version: Callable[[str], str]

    def scores(self, query_sets: Mapping[str, ReadQuerySet]) -> ScoredQuerySets:
        """Yield the scores of each set, once its last query is scored."""
        stored = self.checkpoint.stored
        limit = queries_per_scan(stored.record, stored.recipe, self.batch, self.n_checkpoints)
        queries_by_set = {name: queries.tokenized.examples for name, queries in query_sets.items()}
        scans = scan_count(queries_by_set, limit)
        label = f"{stored.record.name} {', '.join(query_sets)}"
        with Progress(label, scans * stored.factors.n_examples, "examples", self.log) as progress:
            for name, scored in score_query_sets(queries_by_set, limit, lambda queries: self.scan(queries, progress)):
                if isinstance(scored, UnsoundQueryError):
                    yield name, scored
                    continue
                metadata = {"scans": scans, "examples_per_second": round(progress.rate, 1)}
                yield name, ScoredQuerySet(scored, self.version(query_sets[name].version), metadata)


@dataclass(frozen=True)
class MergedScans:
    """Shards added since a set's last full scan are merged into it if the preconditioner moved little."""

    log: logging.Logger
    checkpoint: QueriedCheckpoint
    batch: BatchSettings

    def scores(self, query_sets: Mapping[str, ReadQuerySet]) -> ScoredQuerySets:
        """Score set by set: each has other shards to scan."""
        return _set_by_set(query_sets, self._scored)

    def _scored(self, name: str, query_set: ReadQuerySet) -> ScoredQuerySet:
        from lorif_assets.attribution.scores.score_merging import (
            last_full_scan,
            scan_version,
            score_merged,
            store_full_scan,
        )

        stored = self.checkpoint.stored
        checkpoint, top_k = stored.record.name, stored.recipe.top_k
        version = scan_version(stored.recipe, stored.factors, query_set.version)
        last_scan = last_full_scan(stored.lake, checkpoint, name, version, extreme_count(top_k))
        with Progress(f"{checkpoint} {name}", stored.factors.n_examples, "examples", self.log) as progress:
            scored, full = score_merged(
                self.checkpoint,
                query_set.tokenized.examples,
                last_scan,
                top_k=top_k,
                batch=self.batch,
                progress=progress,
            )
        if full:
            store_full_scan(stored.lake, checkpoint, name, version, full)
        metadata = {"examples_per_second": round(progress.rate, 1)}
        return ScoredQuerySet(scored, stored.score_version(query_set.version), metadata)


class Recalled(Protocol):
    """Scores of the examples that an encoder proposed, or none if all examples have to be scored."""

    @property
    def scores(self) -> QueryScores | None:
        """The scores."""
        ...

    @property
    def encoder_hash(self) -> str:
        """The hash of the encoder's weights."""
        ...

    @property
    def rate(self) -> float:
        """Scored examples per second."""
        ...

    @property
    def metadata(self) -> dict[str, Any]:
        """What to show of it; `recall` describes what was done."""
        ...


Recall = Callable[[LoadedCheckpoint, ReadQuerySet], Recalled]
"""Scores what an encoder proposes for a query set."""


@dataclass(frozen=True)
class RecalledScores:
    """Only what an encoder proposes is scored; if it cannot be trusted, `fallback` scores every example."""

    log: logging.Logger
    checkpoint: QueriedCheckpoint
    recall: Recall
    search_hash: str
    fallback: ScoreMode

    def scores(self, query_sets: Mapping[str, ReadQuerySet]) -> ScoredQuerySets:
        """Score set by set: each has proposals of its own."""
        return _set_by_set(query_sets, self._scored)

    def _scored(self, name: str, query_set: ReadQuerySet) -> ScoredQuerySet:
        stored = self.checkpoint.stored
        recalled: Recalled = self.checkpoint.with_model(self.recall, query_set)
        version = recalled_version(stored.score_version(query_set.version), recalled.encoder_hash, self.search_hash)
        if recalled.scores:
            rate = {"examples_per_second": round(recalled.rate, 1)}
            return ScoredQuerySet(recalled.scores, version, recalled.metadata | rate)
        self.log.warning(f"{stored.record.name} {name}: {recalled.metadata['recall']}")
        ((_, exact),) = self.fallback.scores({name: query_set})
        if isinstance(exact, UnsoundQueryError):
            raise exact
        return ScoredQuerySet(exact.scores, version, recalled.metadata | exact.metadata)


def _set_by_set(
    query_sets: Mapping[str, ReadQuerySet], score: Callable[[str, ReadQuerySet], ScoredQuerySet]
) -> ScoredQuerySets:
    """Yield the scores of each set as soon as they are computed, or the error of its query that is not finite."""
    for name, query_set in query_sets.items():
        try:
            yield name, score(name, query_set)
        except UnsoundQueryError as error:
            yield name, error
