"""Ranking the leading examples of stored scores again by their whole gradients."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from lorif_assets.attribution.exact.exact_influence import exact_scores, solver_tokens
from lorif_assets.attribution.fitting.whole_gradients import WholeCurvature, WholeGradients
from lorif_assets.attribution.pairs.listed_examples import ListedExamples
from lorif_assets.config.exact_scores import ExactScoreSettings
from lorif_assets.config.sections import BatchSettings
from lorif_assets.data.tokens.tokenization import n_tokens
from lorif_assets.progress import Progress

if TYPE_CHECKING:
    from lorif_assets.data.tokens.tokenization import TokenizedExample

_Pair = tuple[str, str]
_FOUND = {
    "query_id": pl.String,
    "shard": pl.String,
    "example_id": pl.String,
    "exact": pl.Float64,
    "self_influence": pl.Float64,
}


@dataclass(frozen=True)
class QueryGroup:
    """Queries whose solutions are held at once, and the examples that any of them lists."""

    queries: "Sequence[TokenizedExample]"
    pairs: Sequence[_Pair]


@dataclass(frozen=True)
class ExactPlan:
    """What is to be ranked again, and what that takes: passes over tokens, and memory."""

    whole: WholeGradients
    groups: Sequence[QueryGroup]
    listed: pl.DataFrame
    """query_id, side, shown_rank, shard, example_id and score."""
    examples: ListedExamples
    settings: ExactScoreSettings
    batch: BatchSettings

    @classmethod
    def of(
        cls,
        whole: WholeGradients,
        queries: "Sequence[TokenizedExample]",
        listed: pl.DataFrame,
        examples: ListedExamples,
        settings: ExactScoreSettings,
        batch: BatchSettings,
    ) -> "ExactPlan":
        """Plan for some queries; as many are taken at a time as `batch.query_mib` holds solutions of."""
        numbers = sum(d1 * d2 for d1, d2 in whole.attributed.record.layer_shapes.values())
        at_once = max(1, batch.query_numbers // numbers)
        groups = []
        for first in range(0, len(queries), at_once):
            some = queries[first : first + at_once]
            names = pl.Series([query.example_id for query in some])
            rows = listed.filter(pl.col("query_id").is_in(names.implode())).select("shard", "example_id").unique()
            groups.append(QueryGroup(some, [pair for pair in sorted(rows.iter_rows()) if pair in examples]))
        return cls(whole, groups, listed, examples, settings, batch)

    @property
    def tokens(self) -> int:
        """Tokens of all passes: of fitting, of solving and of scoring."""
        scored = sum(n_tokens(self._of(group)) for group in self.groups)
        solved = sum(solver_tokens(self.whole, len(group.queries), self.settings) for group in self.groups)
        return self.whole.fit_tokens + solved + scored

    def estimated_seconds(self) -> float:
        """Return about how long it takes: a batch is passed through once to know the rate of a forward and backward pass."""
        examples = self._of(self.groups[0])[:8] if self.groups else []
        if not examples:
            return 0.0
        attributed = self.whole.attributed
        tokens = attributed.batch(examples, range(len(examples)))
        with attributed.collector() as collector:
            started = time.monotonic()
            collector.stream(tokens, lambda _layer, _rows, _found: None, self.batch.gradient_numbers)
            seconds = time.monotonic() - started
        return seconds * self.tokens / n_tokens(examples)

    def __str__(self) -> str:
        scored = sum(len(group.pairs) for group in self.groups)
        solved = "EK-FAC"
        if self.settings.query_solver == "cg":
            sample = min(len(self.whole.sample), self.settings.cg_examples)
            solved = f"{self.settings.cg_rounds} rounds of conjugate gradients on {sample:,} examples for each query"
        fitted = (
            f"EK-FAC is fitted to {len(self.whole.sample):,} examples in two passes"
            if self.whole.fit_tokens
            else "the recipe's own curvature is of whole gradients"
        )
        return (
            f"{fitted}; queries are solved for by {solved}; {scored:,} examples are scored in one pass; {self.tokens:,} tokens "
            f"in all, {self.whole.inverse_bytes / 2**20:,.0f} MiB for the inverse"
        )

    def rows(self, progress: Progress) -> pl.DataFrame:
        """Rank again, and return query_id, side, rank, example_id, shard, score, and what else the table has of it.

        `progress` advances by tokens, of `tokens` in all.
        """
        curvature = self.whole.curvature(self.batch, progress)
        found = pl.concat(
            [
                pl.DataFrame(schema=_FOUND),
                *self._scored(curvature, progress),
            ]
        )
        own = pl.col("self_influence")
        relative = pl.when(own > 0).then(pl.col("exact") / own.sqrt()).otherwise(0.0)
        by_side = pl.when(pl.col("side") == "lowest").then(pl.col("exact")).otherwise(-pl.col("exact"))
        return (
            self.listed.join(found, on=["query_id", "shard", "example_id"], how="inner", maintain_order="left")
            .with_columns(rank=by_side.rank("ordinal").over("query_id", "side").cast(pl.Int32))
            .select(
                "query_id",
                "side",
                "rank",
                "example_id",
                "shard",
                pl.col("exact").cast(pl.Float32).alias("score"),
                pl.col("shown_rank").cast(pl.Int32).alias("stored_rank"),
                pl.col("score").alias("stored_score"),
                pl.col("self_influence").cast(pl.Float32),
                relative.cast(pl.Float32).alias("relative_score"),
            )
            .sort("query_id", "side", "rank")
        )

    def _scored(self, curvature: WholeCurvature, progress: Progress) -> Iterator[pl.DataFrame]:
        for group in self.groups:
            found = exact_scores(curvature, group.queries, self._of(group), self.settings, self.batch, progress)
            for query, row in zip(group.queries, found.scores, strict=True):
                columns = {
                    "query_id": [query.example_id] * len(group.pairs),
                    "shard": [shard for shard, _ in group.pairs],
                    "example_id": [name for _, name in group.pairs],
                    "exact": row.tolist(),
                    "self_influence": found.self_influences.tolist(),
                }
                yield pl.DataFrame(columns, schema=_FOUND)

    def _of(self, group: QueryGroup) -> "list[TokenizedExample]":
        return [self.examples[pair] for pair in group.pairs]
