"""Scoring queries against a checkpoint's stored factors in one streaming pass, however many queries there are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import polars as pl

from lorif_assets.attribution.checkpoints.checkpoint import LoadedCheckpoint, QueriedCheckpoint
from lorif_assets.attribution.pairs.token_rows import TOKEN_ROWS
from lorif_assets.attribution.queries.precondition_queries import PreconditionedQueries, preconditioned_queries
from lorif_assets.attribution.scores.scan_parts import BlockScorer, Scan, ranked_part, scan_parts
from lorif_assets.attribution.scores.score_rows import (
    RELATIVE_SCHEMA,
    all_pairs,
    listed_positions,
    plain_rows,
    relative_rows,
)
from lorif_assets.attribution.stored.factors import StoredFactors
from lorif_assets.config.sections import BatchSettings
from lorif_assets.errors import MismatchError
from lorif_assets.lake.lake import FactorFile
from lorif_assets.lake.read_ahead import read_ahead
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    import torch

    from lorif_assets.data.tokens.tokenization import TokenizedExample
    from lorif_assets.mathematics.scores.relative_influence import Rankings, ScoredBlock
    from lorif_assets.mathematics.scores.scoring import ScoreExtremes, ScoreMoments

ExampleIds = Callable[[Sequence[int]], Mapping[int, tuple[str, str]]]
"""Returns the id and the shard of examples by their position."""


@dataclass(frozen=True)
class PlainScorer:
    """Scores examples by the factors of one checkpoint, `rows` of them at a time, or as many as fit."""

    factors: StoredFactors
    queries: PreconditionedQueries
    rows: int | None

    def blocks(self, files: Sequence[FactorFile], device: "torch.device") -> "Iterator[ScoredBlock]":
        """Score the examples of adjacent files, block by block, in their order."""
        from lorif_assets.mathematics.scores.relative_influence import ScoredBlock

        queries = self.queries.to(device)
        for block in read_ahead(self.factors.scan_blocks(list(queries.by_layer), self.rows, device, files)):
            yield ScoredBlock.of(queries.by_layer, block, queries.norm_weights)


@dataclass(frozen=True)
class QueryScores:
    """Scores of one query set.

    `scores` has the columns query_id, side, rank, example_id, shard, score, relative_score; `summaries` one row per query
    with its loss, and the spread and concentration of its scores over all examples. `scan` says what was scanned, and why.
    `query_error` is the relative error of the preconditioned queries, 0 if they are kept whole. `relative` has the rows
    that lead by relative influence, in the columns of `scores`; their ranks are those of that ranking. `tokens` has the
    shares of single tokens in leading scores, in the columns of `TOKEN_ROWS`, where they were asked for. `cuts` says by its id
    what was cut of a question that is too long, where questions are answered.
    """

    scores: pl.DataFrame
    summaries: pl.DataFrame
    scan: str
    examples_scanned: int
    query_error: float
    relative: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=RELATIVE_SCHEMA))
    tokens: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=TOKEN_ROWS))
    cuts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def with_cuts(self, queries: "Sequence[TokenizedExample]") -> "QueryScores":
        """Return the same, with what was cut of the queries."""
        return replace(self, cuts={query.example_id: query.cuts for query in queries if query.cuts})


@dataclass(frozen=True)
class ScanResult:
    """The scores of a scan, and the rankings that they were taken from."""

    scores: QueryScores
    rankings: "Rankings"


def score_queries(
    checkpoint: QueriedCheckpoint,
    queries: "Sequence[TokenizedExample]",
    *,
    top_k: int | Literal["all"],
    batch: BatchSettings,
    progress: Progress,
    reason: str,
) -> QueryScores:
    """Score every stored example for every query.

    Args:
        checkpoint: to which they are put.
        queries: tokenized.
        top_k: proponents and opponents to return, or every pair.
        batch: sizes of batches of queries and of blocks of factors.
        progress: advances with every block.
        reason: why every example is scored.

    Raises:
        MismatchError: the factors have another projection than the queries.
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    prepared_queries: PreconditionedQueries = checkpoint.with_model(comparable_queries, queries, batch)
    factors = checkpoint.stored.factors
    scan = full_scan(factors, len(queries), extreme_count(top_k), reason)
    scorer = PlainScorer(factors, prepared_queries, batch.scan_rows)
    return run_scan(checkpoint, queries, prepared_queries, scan, scorer, top_k=top_k, progress=progress).scores


def comparable_queries(
    checkpoint: LoadedCheckpoint, queries: "Sequence[TokenizedExample]", batch: BatchSettings
) -> PreconditionedQueries:
    """Return preconditioned queries that can be compared with the stored factors.

    Raises:
        MismatchError: the factors have another projection than the queries.
        UnsoundQueryError: a query's loss or gradient is not finite.
    """
    name, stored, own = checkpoint.stored.record.name, checkpoint.stored.factors.projection, checkpoint.model.projection
    if stored != own:
        raise MismatchError(
            f"the gradient factors of {name!r} have the projection {stored}, the queries {own}; they cannot be compared. "
            "Materialize `gradient_factors` again"
        )
    return preconditioned_queries(checkpoint, queries, batch)


def full_scan(factors: StoredFactors, n_queries: int, n_extremes: int, reason: str) -> Scan:
    """Return the scan of every shard that keeps `n_extremes` examples on either side of each query's ranking."""
    from lorif_assets.mathematics.scores.relative_influence import Rankings

    return Scan(factors.files, Rankings.empty(n_queries, n_extremes, factors.n_examples), f"full scan: {reason}")


def run_scan(
    checkpoint: QueriedCheckpoint,
    queries: "Sequence[TokenizedExample]",
    prepared_queries: PreconditionedQueries,
    scan: Scan,
    scorer: BlockScorer,
    *,
    top_k: int | Literal["all"],
    progress: Progress,
) -> ScanResult:
    """Carry out a scan.

    Args:
        checkpoint: whose factors are scanned.
        queries: tokenized.
        prepared_queries: the same queries, preconditioned.
        scan: which files to scan, and what is known of the others.
        scorer: of the examples.
        top_k: proponents and opponents to return, or every pair.
        progress: advances with every block.
    """
    stored, rankings, every = checkpoint.stored.factors, scan.rankings, []
    parts = scan_parts(stored, scan, len(queries), checkpoint.parts)
    ranking = partial(ranked_part, scorer=scorer, keeps_all=top_k == "all")
    for part, found in zip(parts, checkpoint.scanned(ranking, parts, progress), strict=True):
        rankings = found.rankings if part.goes_on else rankings.joined(found.rankings, part.first)
        every += found.scores
    rankings = rankings.on_cpu()
    scores = listed_scores(
        queries,
        prepared_queries,
        rankings,
        every,
        stored.example_ids,
        top_k=top_k,
        scan=scan.reason,
        examples_scanned=sum(file.rows for file in scan.files),
    )
    return ScanResult(scores, rankings)


def listed_scores(
    queries: "Sequence[TokenizedExample]",
    prepared_queries: PreconditionedQueries,
    rankings: "Rankings",
    every: "Sequence[torch.Tensor]",
    example_ids: ExampleIds,
    *,
    top_k: int | Literal["all"],
    scan: str,
    examples_scanned: int,
) -> QueryScores:
    """Return what is kept of a scan.

    Args:
        queries: tokenized.
        prepared_queries: the same queries, preconditioned.
        rankings: of all examples.
        every: blocks of the scores of every example, where every pair is wanted.
        example_ids: of positions that are listed.
        top_k: proponents and opponents to list, or every pair. Of the relative ranking, both ends alone.
        scan: what was scanned, and why.
        examples_scanned: how many examples were.
    """
    import torch

    from lorif_assets.mathematics.scores.self_influence import relative_influence

    names, n_examples = [query.example_id for query in queries], rankings.moments.count
    k = min(extreme_count(top_k) if top_k == "all" else top_k, n_examples)
    if top_k == "all":
        examples = example_ids(range(n_examples))
        scores = torch.cat(list(every), dim=1)
        rows = all_pairs(names, scores, examples, relative_influence(scores, rankings.squares))
    else:
        examples = example_ids([*listed_positions(rankings.plain, k), *listed_positions(rankings.relative, k)])
        rows = plain_rows(names, rankings, k, examples)
    return QueryScores(
        rows,
        query_summaries(queries, prepared_queries.losses, rankings.plain, rankings.moments),
        scan,
        examples_scanned,
        prepared_queries.relative_error,
        relative_rows(names, rankings, k, examples),
    )


def extreme_count(top_k: int | Literal["all"]) -> int:
    """Return how many extremes of a query a scan keeps.

    At least 100, even if fewer are listed: the concentration of influence is that of the 10 and 100 highest.
    """
    return 100 if top_k == "all" else max(top_k, 100)


def query_summaries(
    queries: "Sequence[TokenizedExample]", losses: "torch.Tensor", extremes: "ScoreExtremes", moments: "ScoreMoments"
) -> pl.DataFrame:
    """Return rows of `query_summaries`: each query's loss, and the spread and concentration of its scores."""
    from lorif_assets.mathematics.scores.scoring import share_of_positive

    return pl.DataFrame(
        {
            "query_id": [query.example_id for query in queries],
            "loss": losses.numpy(),
            "n_target_tokens": [query.n_targets for query in queries],
            "n_examples": [moments.count] * len(queries),
            "score_mean": moments.mean.numpy(),
            "score_std": moments.std.numpy(),
            "score_abs_sum": moments.magnitude.numpy(),
            "positive_sum": moments.positive.numpy(),
            "top_10_share": share_of_positive(extremes, moments, 10).numpy(),
            "top_100_share": share_of_positive(extremes, moments, 100).numpy(),
        }
    )
