"""Query sets scored at one checkpoint: in scans of as many sets as memory holds, or set by set where that saves work."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from lorif_assets.attribution.checkpoint import AttributedCheckpoint, StoredCheckpoint
from lorif_assets.attribution.score_queries import QueryScores, extremes_kept, score_queries
from lorif_assets.attribution.score_query_sets import queries_per_scan, scan_count, score_query_sets
from lorif_assets.attribution.versions import averaged_version, recalled_version
from lorif_assets.config.settings import Settings
from lorif_assets.errors import MismatchError, UnsoundQueryError
from lorif_assets.influcoder.cascade import recalled_scores
from lorif_assets.lake.attribution_tables import QUERY_EXAMPLES
from lorif_assets.models.checkpoints import Checkpoints
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from lorif_assets.attribution.score_merging import FullScan
    from lorif_assets.data.tokenization import TokenizedExample, TokenizedShard


@dataclass(frozen=True)
class ReadQuerySet:
    """The rows of a query set, and its queries as one checkpoint's tokenizer sees them."""

    rows: pl.DataFrame
    tokenized: "TokenizedShard"

    @property
    def version(self) -> str:
        """The hash of its rows."""
        return str(self.rows["query_set_hash"][0])


@dataclass(frozen=True)
class ScoredQuerySet:
    """Scores of a query set, their data version, and how they came about."""

    scores: QueryScores
    version: str
    metadata: dict[str, Any]


@dataclass(frozen=True)
class CheckpointScoring:
    """Scores query sets at one checkpoint, averaged with those of `earlier` ones."""

    log: logging.Logger
    settings: Settings
    model_checkpoints: Checkpoints
    checkpoint: AttributedCheckpoint
    earlier: Sequence[StoredCheckpoint]

    def read(self, query_set: str) -> ReadQuerySet:
        """Read and tokenise a query set.

        Raises:
            MismatchError: it is not in `query_examples`.
        """
        rows = self.checkpoint.stored.lake.read(QUERY_EXAMPLES, query_set=query_set).sort("row")
        if rows.is_empty():
            raise MismatchError(f"the query set {query_set!r} is not in `query_examples`; materialize it there first")
        return ReadQuerySet(rows, self.checkpoint.model.tokenized(rows.to_arrow(), id_column="query_id"))

    def scores(self, asked: Mapping[str, ReadQuerySet]) -> Iterator[tuple[str, ScoredQuerySet | UnsoundQueryError]]:
        """Yield the scores of each set: in scans of as many sets as memory holds, or set by set where that saves work.

        A set with a query whose loss or gradient is not finite is yielded with that error.
        """
        recipe = self.settings.recipe
        if recipe.recall == "none" and recipe.added_data == "exact":
            yield from self._in_shared_scans(asked)
            return
        for name, queries in asked.items():
            try:
                yield name, self._merged(name, queries) if recipe.recall == "none" else self._recalled(name, queries)
            except UnsoundQueryError as error:
                yield name, error

    def _in_shared_scans(
        self, asked: Mapping[str, ReadQuerySet]
    ) -> Iterator[tuple[str, ScoredQuerySet | UnsoundQueryError]]:
        limit = queries_per_scan(
            self.checkpoint.stored.record,
            self.settings.recipe,
            self.settings.batch,
            checkpoints=1 + len(self.earlier),
        )
        query_sets = {name: queries.tokenized.examples for name, queries in asked.items()}
        scans = scan_count(query_sets, limit)
        label = f"{self.checkpoint.stored.record.name} {', '.join(asked)}"
        with Progress(self.log, label, scans * self.checkpoint.stored.factors.n_examples, "examples") as progress:
            for name, scored in score_query_sets(query_sets, limit, lambda queries: self._scan(queries, progress)):
                if isinstance(scored, UnsoundQueryError):
                    yield name, scored
                    continue
                metadata = {"scans": scans, "examples_per_second": round(progress.rate, 1)}
                yield name, ScoredQuerySet(scored, self._version(asked[name]), metadata)

    def _merged(self, name: str, queries: ReadQuerySet) -> ScoredQuerySet:
        from lorif_assets.attribution.score_merging import keep_full_scan, last_full_scan, scan_version

        stored = self.checkpoint.stored
        checkpoint, factors = stored.record.name, stored.factors
        version = scan_version(self.settings.recipe, factors, queries.version)
        last = last_full_scan(stored.lake, checkpoint, name, version, extremes_kept(self.settings.recipe.top_k))
        with Progress(self.log, f"{checkpoint} {name}", factors.n_examples, "examples") as progress:
            scored = self._scan(queries.tokenized.examples, progress, last)
        if scored.full_scan:
            keep_full_scan(stored.lake, checkpoint, name, version, scored.full_scan)
        return ScoredQuerySet(scored, self._version(queries), {"examples_per_second": round(progress.rate, 1)})

    def _recalled(self, name: str, queries: ReadQuerySet) -> ScoredQuerySet:
        recalled = recalled_scores(self.checkpoint, queries.tokenized.examples, queries.rows, self.settings)
        version = recalled_version(self._version(queries), recalled.encoder_hash, self.settings.influcoder.search_hash)
        if recalled.scores:
            rate = {"examples_per_second": round(recalled.rate, 1)}
            return ScoredQuerySet(recalled.scores, version, recalled.metadata | rate)
        self.log.warning(f"{self.checkpoint.stored.record.name} {name}: {recalled.metadata['recall']}")
        ((_, exact),) = self._in_shared_scans({name: queries})
        if isinstance(exact, UnsoundQueryError):
            raise exact
        return ScoredQuerySet(exact.scores, version, recalled.metadata | exact.metadata)

    def _scan(
        self, queries: "Sequence[TokenizedExample]", progress: Progress, last: "FullScan | None" = None
    ) -> QueryScores:
        from lorif_assets.attribution.score_averaging import earlier_checkpoints

        batch = self.settings.batch
        return score_queries(
            self.checkpoint,
            queries,
            top_k=self.settings.recipe.top_k,
            batch=batch,
            progress=progress,
            last=last,
            earlier=earlier_checkpoints(self.checkpoint, self.earlier, queries, self.model_checkpoints, batch),
        )

    def _version(self, queries: ReadQuerySet) -> str:
        return averaged_version([one.score_version(queries.version) for one in (*self.earlier, self.checkpoint.stored)])
