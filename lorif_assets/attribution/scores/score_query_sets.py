"""Scoring several query sets in as few scans of the factors as memory allows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from lorif_assets.attribution.scores.score_queries import QueryScores
from lorif_assets.errors import UnsoundQueryError

if TYPE_CHECKING:
    from lorif_assets.attribution.stored.checkpoint_record import CheckpointRecord
    from lorif_assets.config.recipe import Recipe
    from lorif_assets.config.sections import BatchSettings
    from lorif_assets.data.tokens.tokenization import TokenizedExample


@dataclass(frozen=True)
class _QueryOfSet:
    query_set: str
    query: "TokenizedExample"

    @property
    def key(self) -> str:
        return f"{self.query_set}|{self.query.example_id}"


def queries_per_scan(record: "CheckpointRecord", recipe: "Recipe", batch: "BatchSettings", n_checkpoints: int) -> int:
    """Return how many preconditioned queries fit into `batch.query_mib`, each once per checkpoint; at least one."""
    shapes, rank = record.layer_shapes.values(), recipe.query_rank
    numbers = sum(d1 * d2 if rank is None else (d1 + d2) * min(rank, d1, d2) for d1, d2 in shapes)
    return max(1, batch.query_numbers // (n_checkpoints * numbers))


def scan_count(query_sets: "Mapping[str, Sequence[TokenizedExample]]", limit: int) -> int:
    """Return the number of scans that all queries of the sets take, with `limit` queries in each."""
    return -(-sum(map(len, query_sets.values())) // limit)


def score_query_sets(
    query_sets: "Mapping[str, Sequence[TokenizedExample]]",
    limit: int,
    score: "Callable[[Sequence[TokenizedExample]], QueryScores]",
) -> Iterator[tuple[str, QueryScores | UnsoundQueryError]]:
    """Yield each set's scores as soon as its last query is scored; a scan takes `limit` queries of any sets.

    A set with a query whose loss or gradient is not finite is yielded with that error, and the others go on without it.

    Args:
        query_sets: tokenized queries; two sets may use the same ids.
        limit: queries of one scan.
        score: scans the factors for some queries.
    """
    remaining = [_QueryOfSet(name, query) for name, queries in query_sets.items() for query in queries]
    parts: dict[str, list[QueryScores]] = {name: [] for name in query_sets}
    while remaining:
        group = remaining[:limit]
        try:
            # Queries of two sets may have the same id.
            scored = score([replace(one.query, example_id=one.key) for one in group])
        except UnsoundQueryError as error:
            unsound = {one.query_set for one in group if one.key in error.query_ids}
            yield from ((name, error) for name in sorted(unsound))
            remaining = [one for one in remaining if one.query_set not in unsound]
            continue
        remaining = remaining[limit:]
        names = dict.fromkeys(one.query_set for one in group)
        for name in names:
            ids = {one.key: one.query.example_id for one in group if one.query_set == name}
            parts[name].append(_of_queries(scored, ids))
        unfinished = {one.query_set for one in remaining}
        yield from ((name, _joined(parts.pop(name))) for name in names if name not in unfinished)


def _of_queries(query_scores: QueryScores, ids: Mapping[str, str]) -> QueryScores:
    def rows_of(frame: pl.DataFrame) -> pl.DataFrame:
        chosen = frame.filter(pl.col("query_id").is_in(list(ids)))
        return chosen.with_columns(pl.col("query_id").replace_strict(ids, return_dtype=pl.String))

    return replace(
        query_scores,
        scores=rows_of(query_scores.scores),
        summaries=rows_of(query_scores.summaries),
        relative=rows_of(query_scores.relative),
    )


def _joined(parts: Sequence[QueryScores]) -> QueryScores:
    return replace(
        parts[0],
        scores=pl.concat(part.scores for part in parts),
        summaries=pl.concat(part.summaries for part in parts),
        query_error=max(part.query_error for part in parts),
        relative=pl.concat(part.relative for part in parts),
    )
